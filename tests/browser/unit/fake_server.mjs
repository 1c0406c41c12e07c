// A small model of the server for the client to talk to: rooms, connections, long polls and
// streams. Its time is the simulation's clock.

const CONNECTION_TIMEOUT_MS = 5000;

/** Key of the header fields of a refusal. They are not part of its JSON. */
export const FIELDS = Symbol("fields");

export class FakeServer {
  constructor(clock, { history = 100, page = Infinity } = {}) {
    Object.assign(this, { clock, history, page, pairs: 0, restarts: -1 });
    this.readers = new Set();
    this.restart();
  }

  /** Forgets everything, as a server without a state file does. */
  restart() {
    for (const reader of [...this.readers]) reader.fail();
    for (const { timer } of this.connections?.values() ?? []) this.clock.clearTimeout(timer);
    this.channels = new Map();
    this.connections = new Map();
    this.connectionCount = 0;
    this.epoch = `epoch${++this.restarts}`;
  }

  /**
   * Handles a call. Calls reply(answer), or fail() if the server restarts before. Returns what
   * happens when the client closes, if anything does.
   */
  call(path, query, reply, fail) {
    try {
      return this[`on_${path}`](Object.fromEntries(query), reply, { query, fail });
    } catch (error) {
      if (!error.refusal) throw error;
      reply(error.refusal);
    }
  }

  /** Returns the names of the members of a room. */
  names(room) {
    const here = [...this.connections.values()].filter(({ rooms }) => rooms.has(room));
    return here.map(({ rooms }) => rooms.get(room).message.split("\n")[0]);
  }

  texts(room) {
    const { messages } = this.channel(room);
    return messages.filter(({ type }) => type === "message").map(({ message }) => message);
  }

  /** Introduces a member that never times out. Returns the answer. */
  introduce(room, message) {
    let introduced;
    this.on_introduce({ channel: room, message }, (answer) => (introduced = answer));
    const connection = this.connections.get(introduced.connection);
    this.clock.clearTimeout(connection.timer);
    connection.neverTimesOut = true;
    return introduced;
  }

  write(room, message, credentials = {}) {
    this.on_write({ channel: room, message, ...credentials }, () => {});
  }

  on_create({ kind = "inbox" }, reply) {
    const count = ++this.pairs;
    const names = {
      inbox: { read: `~r${count}`, write: `~w${count}` },
      feed: { write: `~f${count}`, read: `~b${count}` },
      room: { owner: `~o${count}`, channel: `~c${count}` },
    }[kind];
    reply(names ?? refuse("bad_parameter", 400));
  }

  on_remove({ channel, id }, reply) {
    if (!/^~[orf]/.test(channel)) refuse("not_owner", 403);
    const { messages, next } = this.channel(channel);
    if (!(id > 0 && id < next)) refuse("bad_parameter", 400);
    const removed = messages.find((message) => message.id === Number(id));
    if (this.introductions(channel).includes(removed)) removed.message = "";
    else if (removed) {
      removed.type = "removed";
      delete removed.message;
    }
    reply({ id: this.add(channel, { type: "removal", of: Number(id) }) });
  }

  on_kick({ channel, connection: number, message }, reply) {
    if (!/^~o/.test(channel)) refuse("not_owner", 403);
    const connection = this.connections.get(Number(number));
    if (connection?.rooms.delete(logName(channel))) {
      const text = message === undefined ? {} : { message };
      this.add(channel, { type: "goodbye", from: connection.number, reason: "removed", ...text });
    }
    reply({ ok: true });
  }

  on_introduce({ channel, message, ...credentials }, reply) {
    if (channel.length > 128) refuse("bad_channel", 400);
    if (message.length > 1024) refuse("message_too_large", 413);
    if (/^~[rb]/.test(channel)) refuse("not_writable", 403);
    let connection = this.verify(credentials);
    if (!connection) {
      const number = ++this.connectionCount;
      const auth = `secret${this.restarts}.${number}`;
      connection = { number, auth, rooms: new Map(), readers: 0, calls: 0 };
      this.connections.set(number, connection);
    }
    const id = this.add(channel, { type: "introduction", from: connection.number, message });
    const introduction = this.channel(channel).messages.at(-1) ?? { id, message };
    connection.rooms.set(logName(channel), introduction);
    this.restartTimeout(connection);
    const timeout = CONNECTION_TIMEOUT_MS / 1000;
    reply({ connection: connection.number, auth: connection.auth, id, timeout });
  }

  on_write({ channel, message, ...credentials }, reply) {
    if (message.length > 1000) refuse("message_too_large", 413);
    if (/^~[rb]/.test(channel)) refuse("not_writable", 403);
    const connection = this.verify(credentials);
    const sender = connection && { from: connection.number };
    const id = this.add(channel, { type: "message", ...sender, message });
    this.restartTimeout(connection);
    reply({ id });
  }

  on_goodbye(credentials, reply) {
    this.end(this.verify(credentials), "left");
    reply({ ok: true });
  }

  on_read({ epoch, timeout, grace, ...credentials }, reply, { query, fail }) {
    const names = query.getAll("channel");
    if (names.some((name) => name.length > 128)) refuse("bad_channel", 400);
    if (names.some((name) => /^~[wf]/.test(name))) refuse("not_readable", 403);
    const from = query.getAll("from_id").map(Number);
    const connection = this.verify(credentials);
    const answer = () => this.answer(names, from, epoch);
    const now = answer();
    if (timeout === "0" || hasNews(now)) {
      this.restartTimeout(connection);
      reply(now);
      return;
    }
    // A new long poll of a connection replaces its earlier reader.
    for (const other of [...this.readers]) {
      if (connection && other.connection === connection) other.notify();
    }
    const reader = { names, connection, fail };
    const remove = () => {
      this.readers.delete(reader);
      this.clock.clearTimeout(timer);
      if (connection) connection.readers--;
    };
    reader.notify = () => {
      remove();
      this.restartTimeout(connection);
      reply(answer());
    };
    reader.fail = () => {
      remove();
      fail();
    };
    const timer = this.clock.setTimeout(reader.notify, timeout * 1000);
    this.readers.add(reader);
    if (connection) connection.readers++;
    return () => {
      if (!this.readers.has(reader)) return;
      remove();
      this.outlive(connection, grace);
    };
  }

  /**
   * Opens a stream. Calls onAnswer(answer, from) for everything that is new, and onEnd() when the
   * server restarts. Returns what happens when the client closes it.
   */
  openStream(query, onAnswer, onEnd) {
    const names = query.getAll("channel");
    let from = query.getAll("from_id").map(Number);
    let epoch = query.get("epoch");
    const connection = this.verify(Object.fromEntries(query));
    const reader = { names, connection };
    const remove = () => {
      this.readers.delete(reader);
      if (connection) connection.readers--;
    };
    // The stream continues when its connection ends.
    reader.notify = () => {
      const answer = this.answer(names, from, epoch);
      if (!hasNews(answer)) return;
      onAnswer(answer, from);
      from = parts(answer).map(({ next_id }) => next_id);
      epoch = this.epoch;
    };
    reader.fail = () => {
      remove();
      onEnd();
    };
    this.readers.add(reader);
    if (connection) connection.readers++;
    reader.notify();
    return () => {
      if (!this.readers.has(reader)) return;
      remove();
      this.outlive(connection, query.get("grace"));
    };
  }

  /** Ends the connection of a closed read after this many seconds, unless a call carries it. */
  outlive(connection, grace) {
    if (!connection) return;
    if (!grace) return this.end(connection, "closed");
    this.restartTimeout(connection);
    const { calls } = connection;
    this.clock.setTimeout(() => {
      if (connection.calls === calls && !connection.readers) this.end(connection, "closed");
    }, grace * 1000);
  }

  /** Returns the answer of a read from these ids. */
  answer(names, from, epoch) {
    const channels = names.map((name, i) => {
      const { messages, next } = this.channel(name);
      const isReset = from[i] > 0 && (epoch !== this.epoch || from[i] > next);
      const start = isReset ? 0 : from[i];
      let list = messages.filter(({ id }) => id >= start).slice(0, this.page);
      const next_id = list.length ? list.at(-1).id + 1 : next;
      if (start === 0) {
        // A read from 0 also has the introductions of all members.
        const known = new Set(messages.map(({ id }) => id));
        const older = this.introductions(name).filter(({ id }) => !known.has(id));
        list = [...older, ...list].sort((a, b) => a.id - b.id);
      }
      const isMissed = start > 0 && start < (messages[0]?.id ?? next);
      const flags = { ...(isMissed && { missed: true }), ...(isReset && { reset: true }) };
      return { channel: name, messages: list, next_id, ...flags };
    });
    const { channel, ...only } = channels[0];
    const { epoch: current } = this;
    return structuredClone(
      channels.length > 1 ? { channels, epoch: current } : { ...only, epoch: current },
    );
  }

  /** Returns what a read with these parameters gets now. */
  answerTo(query) {
    const from = query.getAll("from_id").map(Number);
    return this.answer(query.getAll("channel"), from, query.get("epoch"));
  }

  channel(name) {
    const log = logName(name);
    if (!this.channels.has(log)) this.channels.set(log, { messages: [], next: 1 });
    return this.channels.get(log);
  }

  /** Returns the introductions of the members of a room. */
  introductions(name) {
    const all = [...this.connections.values()].map(({ rooms }) => rooms.get(logName(name)));
    return all.filter(Boolean);
  }

  /** Adds a message to a channel, and notifies its readers at the end of the turn. */
  add(name, message) {
    const channel = this.channel(name);
    const id = channel.next++;
    const isOwner = name.startsWith("~o") && message.type !== "removal" && !message.reason;
    const owner = isOwner ? { owner: true } : {};
    channel.messages.push({ id, time: this.clock.now, ...owner, ...message });
    channel.messages.splice(0, channel.messages.length - this.history);
    this.clock.setTimeout(() => {
      for (const reader of [...this.readers]) {
        if (reader.names.some((one) => logName(one) === logName(name))) reader.notify();
      }
    }, 0);
    return id;
  }

  /** Returns the connection of these credentials, or null if there are none. */
  verify({ connection, auth }) {
    if (!connection) return null;
    const known = this.connections.get(Number(connection));
    if (!known) refuse("connection_ended", 410);
    if (known.auth !== auth) refuse("bad_auth", 403);
    known.calls++;
    return known;
  }

  restartTimeout(connection) {
    if (!connection || connection.neverTimesOut) return;
    this.clock.clearTimeout(connection.timer);
    connection.timer = this.clock.setTimeout(() => {
      if (!connection.readers) this.end(connection, "timeout");
    }, CONNECTION_TIMEOUT_MS);
  }

  end(connection, reason) {
    if (!this.connections.delete(connection.number)) return;
    this.clock.clearTimeout(connection.timer);
    for (const room of connection.rooms.keys()) {
      this.add(room, { type: "goodbye", from: connection.number, reason });
    }
    this.clock.setTimeout(() => {
      for (const reader of [...this.readers]) {
        if (reader.connection === connection) reader.notify();
      }
    }, 0);
  }
}

const GIVEN_AWAY = { "~r": "~w", "~f": "~b", "~o": "~c" };

/** Returns the name under which the messages of a channel are stored. */
const logName = (name) => name.replace(/^~[rfo]/, (secret) => GIVEN_AWAY[secret]);

const parts = (answer) => answer.channels ?? [answer];
const hasNews = (answer) =>
  parts(answer).some(({ messages, reset, missed }) => messages.length || reset || missed);

/** Throws an error that FakeServer.call() answers with, and with these header fields. */
export function refuse(error, status, fields = {}) {
  const refusal = { error, detail: `refused: ${error}`, status, [FIELDS]: fields };
  throw Object.assign(new Error(error), { refusal });
}
