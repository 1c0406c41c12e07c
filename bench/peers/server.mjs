// The HTTP or HTTPS server of a peer in Node: FILE.mjs PORT [CERTIFICATE KEY].
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';

const [port, certificate, key] = process.argv.slice(2);

export const server = certificate
  ? https.createServer({
      cert: readFileSync(certificate),
      key: readFileSync(key),
      minVersion: 'TLSv1.3',
    })
  : http.createServer();

// Ten thousand clients that come at once need a longer queue than the default, 511.
export const listen = () => server.listen({ port: Number(port), host: '127.0.0.1', backlog: 4096 });
