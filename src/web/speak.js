// Browser client of Speak: const chat = Speak.join("lobby", { name: "Josh" }). speak.d.ts documents
// it. build.rs removes the comments, so each must have a line, or the end of a line, to itself.
(() => {
  "use strict";

  class SpeakError extends Error {}

  const unique = () => `_${Math.random().toString(36).slice(2)}${Date.now()}`;
  const oneLine = (text = "") => `${text}`.replace(/\s+/g, " ").trim();
  const base = (url) => new URL(url, location.href).href.replace(/\/*$/, "/");

  function form(values) {
    const fields = Object.entries(values).flatMap(([key, value]) =>
      [value ?? []].flat().map((item) => [key, item]));
    return new URLSearchParams(fields);
  }

  // Transport that loads a script or an image. A script brings an answer from any origin. An image
  // shows only that the endpoint can be reached.
  const tagTransport = (tag) => (url, query, signal) =>
    new Promise((resolve, reject) => {
      const element = document.createElement(tag);
      const callback = unique();
      query.append("callback", callback);
      query.append("_", callback);
      globalThis[callback] = resolve;
      // A script cannot be cancelled. Its callback stays until the script has loaded, however late.
      element.onload = element.onerror = ({ type }) => {
        delete globalThis[callback];
        element.remove();
        if (tag === "img" && type === "load") resolve({});
        reject(new Error("nothing loaded"));
      };
      signal.onabort = () => reject(signal.reason);
      element.referrerPolicy = "no-referrer";
      element.src = `${url}?${query}`;
      document.head.append(element);
    });

  // A form by POST needs no preflight and puts no secret into logs and caches.
  async function post(url, body, signal) {
    const response = await fetch(url, { method: "POST", body, signal,
      credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer" });
    return response.json();
  }

  // Reader of a stream. next(values) returns the answer that a read of these values would get. If
  // the open stream does not continue exactly there, next() opens a new one. It returns undefined
  // after a silence in which an answer may have been lost.
  const stream = (open) => (_, endpoint) => {
    // The open stream: { values, from, received, source, timeoutMs, neverOpened, timedOut, ended }.
    let conn;
    let wake = () => {};

    function begin(values) {
      const from = JSON.stringify(values); // the read that the stream answers next
      const current = (conn = { values, from, received: [], timeoutMs: 3000, neverOpened: true });
      // Ignores events of a replaced stream, and those after the end: they would hide a loss.
      const guarded = (act) => (value) => {
        if (conn !== current || current.ended) return;
        act(value);
        wake();
      };
      const end = guarded(() => (current.ended = true));
      try {
        // If a proxy turns the stream into a plain read, the server answers the read at once.
        const url = `${endpoint}read?${form(values)}&timeout=0`;
        current.source = open(url, guarded((answer) => current.received.push(answer)), values);
        current.source.onopen = () => (current.neverOpened = false);
        current.source.onerror = current.source.onclose = end;
      } catch {
        end(); // the page's policy may forbid streams
      }
    }

    function close() {
      conn?.source?.close();
      conn = null;
      wake();
    }

    // isBlocked: the stream never opened or lost an answer, so a proxy may block it.
    function fail(isBlocked) {
      close();
      throw Object.assign(new Error("the stream ended"), { isBlocked });
    }

    function takeNext() {
      const answer = conn.received.shift();
      const from_id = parts(answer).map((part) => part.next_id);
      conn.from = JSON.stringify({ ...conn.values, from_id, epoch: answer.epoch });
      conn.timeoutMs = 40000;
      conn.timedOut = false;
      return answer;
    }

    async function next({ timeout, ...values }) {
      const isNext = () => conn?.from === JSON.stringify(values);
      while (conn?.received[0] && !isNext()) takeNext(); // a read was faster
      if (!isNext()) {
        if (conn?.timedOut) fail(true);
        close();
        begin(values);
      }
      const current = conn;
      if (!current.received[0] && !current.ended) {
        const timer = setTimeout(() => wake(), current.timeoutMs * (1 + Math.random()));
        await new Promise((resolve) => (wake = resolve));
        clearTimeout(timer);
      }
      if (current !== conn) return;
      if (current.received[0]) return takeNext();
      if (current.ended || current.neverOpened) fail(current.neverOpened);
      current.timedOut = true;
      current.timeoutMs = Math.min(2 * current.timeoutMs, 40000);
    }
    return { next, close };
  };

  const parts = (answer) => answer.channels ?? [answer];

  function openSocket(url, receive) {
    const source = new WebSocket(url.replace("http", "ws"));
    source.onmessage = ({ data }) => receive(JSON.parse(data));
    return source;
  }

  function openEvents(url, receive, values) {
    const source = new EventSource(url);
    const names = [values.channel].flat();
    source.onmessage = ({ data, lastEventId }) => {
      const { channel = names[0], ...message } = JSON.parse(data);
      const [epoch, cursors] = lastEventId.split(":");
      const part = (next_id, i) =>
        ({ messages: channel === names[i] ? [message] : [], next_id: +next_id });
      receive({ channels: cursors.split(",").map(part), epoch });
    };
    // A read reports more exactly what was lost.
    source.addEventListener("missed", () => source.onerror());
    source.addEventListener("reset", () => source.onerror());
    return source;
  }

  // Transports, best first. call(url, form, signal) returns a promise of the server's answer. A
  // transport with streams also has a reader: next(values) returns a promise of the answer that a
  // long poll would get, and close() closes the stream.
  const transports = [
    { name: "websocket", needs: "WebSocket", call: post, reader: stream(openSocket) },
    { name: "eventsource", needs: "EventSource", call: post, reader: stream(openEvents) },
    { name: "fetch", needs: "fetch", call: post },
    { name: "jsonp", needs: "document", call: tagTransport("script") },
  ];
  const imageTransport = { call: tagTransport("img") };

  // Name of the transport that an earlier page of this tab fell back to.
  function loadPreferred() {
    try {
      return sessionStorage.getItem("speak");
    } catch {} // storage may be forbidden
  }

  function savePreferred(name) {
    try {
      sessionStorage.setItem("speak", name);
    } catch {} // storage may be forbidden
  }

  // Every call has a time limit: a network that loses a call does not report it.
  async function ask(transport, url, values, ms = 10000, controller = new AbortController()) {
    const timer = setTimeout(() => controller.abort(new Error("timed out")), ms);
    try {
      const answer = await transport.call(url, form(values), controller.signal);
      if (answer.error)
        throw Object.assign(new SpeakError(answer.detail), answer, { name: answer.error });
      return answer;
    } finally {
      clearTimeout(timer);
    }
  }

  function poll(transport, endpoint) {
    let controller;
    function next(values) {
      controller = new AbortController();
      return ask(transport, `${endpoint}read`, values, 40000, controller);
    }
    return { next, close: () => controller?.abort() };
  }

  /** @type {import("./speak").join} */
  function join(room, options = {}) {
    const { endpoint: urls = "auto", transport: only = "auto" } = options;
    const { history = true, inbox = true, share = true } = options;
    const server = base(options.server ?? Speak.server);
    const { protocol, hostname } = new URL(server);
    const direct = protocol === "http:" ? [`http://${hostname}:7732/`] : [];
    const endpoints = urls === "auto" ? [...direct, server] : [urls].flat().map(base);
    let candidates = transports.filter(({ name, needs }) =>
      globalThis[needs] && (only === "auto" || only === name));
    const preferred = candidates.findIndex(({ name }) => name === loadPreferred());
    if (preferred > 0) candidates = candidates.slice(preferred);
    let failuresInARow = 0; // of streams that ended before they opened, or lost something
    let name = oneLine(options.name);
    const hasInbox = name && inbox;
    const key = JSON.stringify(["speak", server, room, name]);

    let endpoint, transport, latency, reader, lifetime, bus, isLeader, retryNow;
    const waiters = [];

    let me; // { connection, auth } while introduced
    let pair; // the inbox, { read, write }
    let ownConnections = new Set(); // numbers of all connections that this member has had
    const names = new Map(); // by connection, also of members that have left
    const members = new Map();

    let epoch;
    let isStale = true; // the server may have more: the next read does not wait
    const cursor = hasInbox ? [0, 0] : [0]; // from_id of the next read: room, inbox
    const emitted = [0, 0]; // messages below these ids were emitted, even if the cursor goes back

    let pending; // the item that is being sent
    let lastSentId = 0; // id of the last message that is known to have arrived
    let sendQueue = Promise.resolve();

    const chat = {
      room,
      state: { state: "connecting" },
      members: [],
      me: null,
      say(text) {
        text = form({ text: `${text}` }).get("text"); // as the server will send it back
        return send({ text, act: () => write(room, text) });
      },
      async whisper(member, text) {
        const to = members.get(member.connection ?? member);
        if (!to?.inbox) throw new Error("gone, or takes no whispers");
        const sent = await send({ to, act: () => write(to.inbox, text) });
        const copy = { ...sent, type: "message", time: Date.now(), from: me?.connection,
          message: text };
        if (!to.own) applyMessage(copy, true, true, to);
        return sent;
      },
      async rename(text) {
        text = oneLine(text);
        if (!name || !text) throw new Error("no name");
        await send({ act: () => introduce(text) });
        name = text;
      },
      async leave() {
        const isLast = isLeader && me;
        finish();
        if (isLast) await call("goodbye", me).catch(() => {});
        reader?.close();
      },
    };

    const is = (state) => chat.state.state === state;
    const isIn = () => me || !name;
    const isReady = () => is("connected") && isIn();

    // Handlers that are set after join() miss no event, and a handler that throws stops nothing.
    const emit = (kind, event) => is("left") || queueMicrotask(() => chat[`on${kind}`]?.(event));

    function report(change, read) {
      const state = { ...chat.state, latency, error: undefined, retryIn: undefined, ...change };
      if (JSON.stringify(state) !== JSON.stringify(chat.state)) emit("state", state);
      chat.state = state;
      broadcastState(read);
      notifyWaiters();
    }

    const nextChange = () => new Promise((resolve) => waiters.push(resolve));
    const notifyWaiters = () => waiters.splice(0).forEach((resolve) => resolve());

    async function call(path, values) {
      const began = Date.now();
      const answer = await ask(transport, endpoint + path, values);
      latency = Date.now() - began;
      return answer;
    }

    const write = (channel, message) => call("write", { channel, message, ...me });
    const introduce = (text) =>
      call("introduce",
        { channel: room, message: hasInbox ? `${text}\n${pair.write}` : text, ...me });

    const position = () => `${epoch} ${cursor}`;
    const readValues = (timeout) =>
      ({ channel: hasInbox ? [room, pair.read] : room, from_id: cursor, epoch, timeout, ...me });

    // Chooses the first endpoint and transport that work. The test is /create: it changes nothing.
    async function connect() {
      let failure;
      for (endpoint of endpoints) {
        if (endpoint !== endpoints.at(-1) &&
          !(await ask(imageTransport, `${endpoint}image-test`, {}, 2000).catch(() => {}))) continue;
        let failed; // transports with the same call fail together
        for (transport of candidates) {
          if (transport.call === failed) continue;
          try {
            const answer = await call("create", {});
            pair ??= answer;
            candidates = candidates.filter(({ call }) => call === transport.call);
            reader = (transport.reader ?? poll)(transport, endpoint);
            return;
          } catch (error) {
            failed = transport.call;
            failure = error;
          }
        }
      }
      throw failure;
    }

    // Changes to the next transport at the second failure in a row. A proxy may refuse streams, or
    // hold back what they carry.
    function downgrade() {
      if (++failuresInARow < 2 || !candidates[1]) return false;
      failuresInARow = 0;
      candidates = candidates.slice(1);
      savePreferred(candidates[0].name);
      closeReader();
      return true;
    }

    function closeReader() {
      reader?.close();
      reader = null;
    }

    // Forgets a connection that has ended. After a restart its number may belong to another client:
    // then the error is that the auth code is wrong.
    function forgetConnection(error, credentials) {
      if (!/connection_ended|bad_auth/.test(error.name)) return false;
      if (me === credentials) me = null;
      return true;
    }

    // Applies an answer if it begins at the cursor, so that no message is emitted twice or skipped.
    function applyAnswer(from, answer) {
      if (from !== position()) return false;
      const skipsHistory = !epoch && !history;
      const isNewEpoch = epoch !== answer.epoch; // ids and connections start again
      let hasChanged = isNewEpoch;
      if (isNewEpoch) {
        names.clear();
        ownConnections = new Set(me && [me.connection]);
        lastSentId = 0;
      }
      epoch = answer.epoch;
      parts(answer).forEach((part, i) => {
        if (isNewEpoch || part.reset) cursor[i] = emitted[i] = 0;
        if (part.missed) emit("missed");
        if (!i && !cursor[i]) members.clear();
        for (const message of part.messages) {
          const isNew = message.id >= emitted[i] && !skipsHistory;
          if (applyMessage(message, i > 0, isNew)) hasChanged = true;
        }
        // The lost messages may have changed the members. A read from 0 lists the members again.
        cursor[i] = part.missed ? 0 : part.next_id;
        emitted[i] = Math.max(emitted[i], part.next_id);
      });
      if (hasChanged) {
        chat.members = [...members.values()].sort((a, b) => a.connection - b.connection);
        chat.me = members.get(me?.connection) ?? null;
        emit("members", chat.members);
      }
      return true;
    }

    // Returns whether the message changes the members.
    function applyMessage({ message: text = "", ...rest }, whisper, isNew, to) {
      const { id, type, from } = rest;
      const own = ownConnections.has(from);
      const isText = type === "message";
      if (whisper && !isText) return false;
      if (type === "introduction") {
        const lines = text.split("\n");
        text = lines[0];
        names.set(from, text);
        // Only a pair is an inbox. Else a member could name a room, and whispers would be public.
        const inbox = /^~w/.test(lines[1]) ? lines[1] : undefined;
        members.set(from, { connection: from, name: text, own, inbox });
        if (from === me?.connection) name = text; // another tab may have renamed this member
      } else if (!isText) {
        members.delete(from);
        if (from === me?.connection) me = null; // the stream continues without the connection
      } else if (!whisper && id > lastSentId && text === pending?.text && (from ? own : !name)) {
        pending.id ??= id;
      }
      if (isNew) emit("message", { ...rest, name: names.get(from), text, own, whisper, to });
      return !isText;
    }

    // Main loop, one step at a time. It ends when the chat or the page is left.
    async function run({ signal }) {
      for (let failures = 0, endings = 0; !signal.aborted; ) {
        const credentials = me;
        const from = position();
        if (failures) report({ state: "connecting" });
        try {
          if (!reader) await connect();
          else if (!isLeader && !(isStale && isIn())) await nextChange();
          else if (!isIn()) {
            const { connection, auth } = await introduce(name);
            me = { connection, auth };
            ownConnections.add(connection);
          } else {
            const answer = await (isStale
              ? call("read", readValues(0))
              : reader.next(readValues(25)));
            if (signal.aborted) return;
            if (!answer) {
              isStale = true; // a read may know more than the silent stream
              continue;
            }
            applyAnswer(from, answer);
            if (!isStale) failuresInARow = 0;
            isStale = cursor.includes(0) || (!isLeader && from !== position());
            failures = endings = 0;
            report({ state: "connected", endpoint, transport: transport.name }, { from, answer });
          }
        } catch (error) {
          if (signal.aborted) return;
          if (forgetConnection(error, credentials)) {
            if (!endings++) continue;
          } else if (error.status && !/^(408|429|5)/.test(error.status)) return finish(error);
          isStale = true;
          if (error.isBlocked && downgrade()) continue;
          if (++failures > 1) closeReader();
          const retryIn = (0.5 + Math.random()) *
            Math.min(250 * 2 ** Math.max(failures, failuresInARow), 30000);
          report({ state: "waiting", retryIn, error: error.message });
          await new Promise((resolve) => setTimeout((retryNow = resolve), retryIn));
        }
      }
    }

    function send(item) {
      const sent = sendQueue.then(() => sendWithRetry(item));
      sendQueue = sent.catch(() => {});
      return sent;
    }

    async function sendWithRetry(item) {
      for (let failures = 0; ; ) {
        while (!isReady()) {
          if (is("left")) throw new Error("left");
          await nextChange();
        }
        const credentials = me;
        pending = item;
        try {
          const { id } = await item.act();
          if (!item.to) lastSentId = id;
          return { id };
        } catch (error) {
          if (forgetConnection(error, credentials)) {
            if (transport.reader) reader?.close(); // it did not report the end, so it may be dead
            continue;
          }
          if (error.status || item.to || ++failures > 4) throw error;
          // The message may have arrived. Only a read that begins now can find out.
          const check = async () => applyAnswer(position(), await call("read", readValues(0)));
          while (!is("left") && !(await check().catch(nextChange)));
          if (item.id) return { id: (lastSentId = item.id) };
        }
      }
    }

    // One of the tabs that share a member is the leader. It reads for all of them, and the others
    // write under its connection.
    function broadcastState(read) {
      const now = isReady() && position();
      if (isLeader && pair) bus?.postMessage({ me, ownConnections, pair, name, now, ...read });
    }

    function onTabMessage({ data }) {
      retryNow?.();
      if (isLeader) broadcastState();
      else if (data) {
        ({ me, ownConnections, pair, name } = data);
        if (data.answer) applyAnswer(data.from, data.answer);
        isStale ||= data.now !== position();
        notifyWaiters();
      }
    }

    function onWakeUp() {
      retryNow?.();
      bus?.postMessage(null); // the leader's tab may be asleep
    }

    function start() {
      lifetime = new AbortController();
      const { signal } = lifetime;
      const lead = () => {
        isLeader = true;
        notifyWaiters();
        return new Promise((resolve) => (signal.onabort = resolve));
      };
      if (share && navigator.locks && globalThis.BroadcastChannel) {
        bus = new BroadcastChannel(key);
        bus.onmessage = onTabMessage;
        bus.postMessage(null);
        navigator.locks.request(key, { signal }, lead).catch(() => signal.aborted || lead());
      } else lead();
      addEventListener("online", onWakeUp, { signal });
      addEventListener("visibilitychange", () => document.hidden || onWakeUp(), { signal });
      addEventListener("pagehide", hide, { signal });
      run(lifetime);
    }

    function stop() {
      lifetime.abort();
      retryNow?.();
      bus?.close();
      bus = isLeader = null;
      isStale = true;
    }

    function hide() {
      if (isLeader && me) navigator.sendBeacon(`${endpoint}goodbye`, form(me));
      stop();
      reader?.close();
      addEventListener("pageshow", start, { once: true }); // the browser may keep the page
    }

    function finish(error) {
      if (error) emit("error", error);
      stop();
      report({ state: "left", error: error?.message });
    }

    start();
    return chat;
  }

  const Speak = { join, SpeakError,
    server: new URL(".", document.currentScript?.src || location.origin).href };
  globalThis.Speak = Speak;
})();
