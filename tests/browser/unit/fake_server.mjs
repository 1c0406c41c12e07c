// The protocol's server in small, for the client to talk to: rooms, connections, reads that wait and reads that stay.
// Its time is the clock's.

const TIMEOUT = 5000;

export class Server {
  constructor(clock, { history = 100, page = Infinity } = {}) {
    Object.assign(this, { clock, history, page, pairs: 0, restarts: -1 });
    this.readers = new Set();
    this.restart();
  }

  /** Forgets everything, as a server does that keeps no state. */
  restart() {
    for (const reader of [...this.readers]) reader.fail();
    for (const { timer } of this.connections?.values() ?? []) this.clock.clearTimeout(timer);
    this.channels = new Map();
    this.connections = new Map();
    this.numbers = 0;
    this.epoch = `epoch${++this.restarts}`;
  }

  /** Answers a call: reply(answer), or fail() where the server goes down meanwhile. Returns what a closed client means. */
  call(path, query, reply, fail) {
    try {
      return this[`on_${path}`](Object.fromEntries(query), reply, { query, fail });
    } catch (error) {
      if (!error.refusal) throw error;
      reply(error.refusal);
    }
  }

  /** Who is introduced in a room: their names. */
  names(room) {
    return [...this.connections.values()].filter(({ rooms }) => rooms.has(room)).map(({ rooms }) => rooms.get(room).message.split("\n")[0]);
  }

  texts(room) {
    return this.channel(room).messages.filter(({ type }) => type === "message").map(({ message }) => message);
  }

  /** Somebody else, who stays: their connection. */
  introduce(room, message) {
    let made;
    this.on_introduce({ channel: room, message }, (answer) => (made = answer));
    this.clock.clearTimeout(this.connections.get(made.connection).timer);
    this.connections.get(made.connection).stays = true;
    return made;
  }

  write(room, message, proof = {}) {
    this.on_write({ channel: room, message, ...proof }, () => {});
  }

  on_create(_, reply) {
    this.pairs++;
    reply({ read: `~r${this.pairs}`, write: `~w${this.pairs}` });
  }

  on_introduce({ channel, message, ...proof }, reply) {
    if (channel.length > 128) refuse("bad_channel", 400);
    let connection = this.prove(proof);
    if (!connection) {
      connection = { number: ++this.numbers, auth: `secret${this.restarts}.${this.numbers}`, rooms: new Map(), waits: 0 };
      this.connections.set(connection.number, connection);
    }
    const id = this.add(channel, { type: "introduction", from: connection.number, message });
    connection.rooms.set(channel, this.channel(channel).messages.at(-1) ?? { id, message });
    this.touch(connection);
    reply({ connection: connection.number, auth: connection.auth, id, timeout: TIMEOUT / 1000 });
  }

  on_write({ channel, message, ...proof }, reply) {
    if (message.length > 1000) refuse("message_too_large", 413);
    const connection = this.prove(proof);
    const id = this.add(channel, { type: "message", ...(connection && { from: connection.number }), message });
    this.touch(connection);
    reply({ id });
  }

  on_goodbye(proof, reply) {
    this.end(this.prove(proof), "left");
    reply({ ok: true });
  }

  on_read({ epoch, timeout, ...proof }, reply, { query, fail }) {
    const names = query.getAll("channel");
    if (names.some((name) => name.length > 128)) refuse("bad_channel", 400);
    const from = query.getAll("from_id").map(Number);
    const connection = this.prove(proof);
    const answer = () => this.answer(names, from, epoch);
    const now = answer();
    const parts = now.channels ?? [now];
    if (timeout === "0" || parts.some(({ messages, reset, missed }) => messages.length || reset || missed)) {
      this.touch(connection);
      reply(now);
      return;
    }
    for (const other of [...this.readers]) if (connection && other.connection === connection) other.finish();
    const reader = { names, connection, fail };
    const leave = () => {
      this.readers.delete(reader);
      this.clock.clearTimeout(timer);
      if (connection) connection.waits--;
    };
    reader.finish = () => {
      leave();
      this.touch(connection);
      reply(answer());
    };
    reader.fail = () => {
      leave();
      fail();
    };
    const timer = this.clock.setTimeout(reader.finish, timeout * 1000);
    this.readers.add(reader);
    if (connection) connection.waits++;
    return () => {
      if (!this.readers.has(reader)) return;
      leave();
      if (connection) this.end(connection, "closed");
    };
  }

  /** A stream: tell(answer, from) of all that comes, end() when the server goes down. Returns what its closing means. */
  follow(query, tell, end) {
    const names = query.getAll("channel");
    let from = query.getAll("from_id").map(Number);
    let epoch = query.get("epoch");
    const connection = this.prove(Object.fromEntries(query));
    const reader = { names, connection };
    const leave = () => {
      this.readers.delete(reader);
      if (connection) connection.waits--;
    };
    // When its connection ends it goes on without.
    reader.finish = () => {
      const answer = this.answer(names, from, epoch);
      const parts = answer.channels ?? [answer];
      if (!parts.some(({ messages, reset, missed }) => messages.length || reset || missed)) return;
      tell(answer, from);
      from = parts.map(({ next_id }) => next_id);
      epoch = this.epoch;
    };
    reader.fail = () => {
      leave();
      end();
    };
    this.readers.add(reader);
    if (connection) connection.waits++;
    reader.finish();
    return () => {
      if (!this.readers.has(reader)) return;
      leave();
      if (connection) this.end(connection, "closed");
    };
  }

  answer(names, from, epoch) {
    const parts = names.map((name, i) => {
      const { messages, next } = this.channel(this.readable(name));
      const isReset = from[i] > 0 && (epoch !== this.epoch || from[i] > next);
      const start = isReset ? 0 : from[i];
      let list = messages.filter(({ id }) => id >= start).slice(0, this.page);
      const next_id = list.length ? list.at(-1).id + 1 : next;
      if (start === 0) {
        const here = [...this.connections.values()].map(({ rooms }) => rooms.get(name)).filter(Boolean);
        const known = new Set(messages.map(({ id }) => id));
        list = [...here.filter(({ id }) => !known.has(id)), ...list].sort((one, other) => one.id - other.id);
      }
      const isMissed = start > 0 && start < (messages[0]?.id ?? next);
      return { channel: name, messages: list, next_id, ...(isMissed && { missed: true }), ...(isReset && { reset: true }) };
    });
    const { channel, ...only } = parts[0];
    return structuredClone(parts.length > 1 ? { channels: parts, epoch: this.epoch } : { ...only, epoch: this.epoch });
  }

  channel(name) {
    if (!this.channels.has(name)) this.channels.set(name, { messages: [], next: 1 });
    return this.channels.get(name);
  }

  readable(name) {
    return name.replace("~r", "~w");
  }

  add(name, message) {
    const channel = this.channel(name);
    const id = channel.next++;
    channel.messages.push({ id, time: this.clock.now, ...message });
    channel.messages.splice(0, channel.messages.length - this.history);
    // Readers are answered when the turn is over.
    this.clock.setTimeout(() => {
      for (const reader of [...this.readers]) if (reader.names.some((one) => this.readable(one) === name)) reader.finish();
    }, 0);
    return id;
  }

  prove({ connection, auth }) {
    if (!connection) return null;
    const known = this.connections.get(Number(connection));
    if (!known) refuse("connection_ended", 410);
    if (known.auth !== auth) refuse("bad_auth", 403);
    return known;
  }

  touch(connection) {
    if (!connection || connection.stays) return;
    this.clock.clearTimeout(connection.timer);
    connection.timer = this.clock.setTimeout(() => {
      if (!connection.waits) this.end(connection, "timeout");
    }, TIMEOUT);
  }

  end(connection, reason) {
    if (!this.connections.delete(connection.number)) return;
    this.clock.clearTimeout(connection.timer);
    for (const room of connection.rooms.keys()) this.add(room, { type: "goodbye", from: connection.number, reason });
    this.clock.setTimeout(() => {
      for (const reader of [...this.readers]) if (reader.connection === connection) reader.finish();
    }, 0);
  }
}

export function refuse(error, status) {
  throw Object.assign(new Error(error), { refusal: { error, detail: `refused: ${error}`, status } });
}
