// Rooms with `ws`. A client joins a room with its URL. A message of a client goes to the room that
// it names, as in the broadcast of the package's documentation, and is acknowledged.
// Tuned as the documentation says: no compression (the default), and the package bufferutil.
import { WebSocket, WebSocketServer } from 'ws';
import { listen, server } from './server.mjs';

const rooms = new Map();
const sockets = new WebSocketServer({ server, perMessageDeflate: false });

sockets.on('connection', (socket, request) => {
  const name = new URL(request.url, 'http://localhost').searchParams.get('channel');
  if (!rooms.has(name)) rooms.set(name, new Set());
  const room = rooms.get(name).add(socket);
  socket.on('close', () => {
    room.delete(socket);
    if (room.size === 0 && rooms.get(name) === room) rooms.delete(name);
  });
  socket.on('error', () => socket.terminate());
  socket.on('message', (data) => {
    const { channel, message } = JSON.parse(data);
    const text = Buffer.from(message);
    for (const client of rooms.get(channel) ?? []) {
      if (client.readyState === WebSocket.OPEN) client.send(text, { binary: false });
    }
    socket.send('ok');
  });
});

listen();
