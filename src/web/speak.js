// Browser client of Speak: const chat = Speak.join("lobby", { name: "Josh" }). speak.d.ts documents
// it. build.rs removes the comments, so each must have a line, or the end of a line, to itself.
(() => {
  "use strict";

  class SpeakError extends Error {}

  const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const oneLine = (text = "") => `${text}`.replace(/\s+/g, " ").trim();
  const base = (url) => new URL(url, location.href).href.replace(/\/*$/, "/");

  function form(values) {
    const fields = Object.entries(values).flatMap(([key, value]) =>
      [value ?? []].flat().map((item) => [key, item]));
    return new URLSearchParams(fields);
  }

  // A script brings an answer from any origin.
  const loadScript = (url, query, signal) =>
    new Promise((resolve, reject) => {
      const element = document.createElement("script");
      const callback = `_${Math.random().toString(36).slice(2)}`;
      query.append("callback", callback);
      query.append("_", callback);
      globalThis[callback] = resolve;
      // A script cannot be cancelled. Its callback stays until the script has loaded, however late.
      element.onload = element.onerror = () => {
        delete globalThis[callback];
        element.remove();
        reject(new Error("nothing loaded"));
      };
      signal.onabort = () => reject(signal.reason);
      element.referrerPolicy = "no-referrer";
      element.src = `${url}?${query}`;
      document.head.append(element);
    });

  // A form by POST needs no preflight and puts no secret into logs and caches. A goodbye arrives,
  // even if the page closes right after it.
  async function post(url, body, signal) {
    const response = await fetch(url, { method: "POST", body, signal,
      keepalive: url.endsWith("goodbye"),
      credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer" });
    const retryAfter = response.headers.get("Retry-After");
    return { ...(await response.json()), retryAfter };
  }

  // Reader of a stream. next(values) returns the answer that a read of these values would get. If
  // the open stream does not continue exactly there, next() opens a new one. It returns undefined
  // after a silence in which an answer may have been lost, and after close().
  const stream = (open) => (_, endpoint, onOpen) => {
    // The open stream: { values, from, received, source, timeoutMs, isOpen, timedOut, ended }, and
    // the times at which it began and was last heard of.
    let conn;
    let wake = () => {};

    function begin(values) {
      const from = JSON.stringify(values); // the read that the stream answers next
      const current = (conn = { values, from, received: [], timeoutMs: 3000, began: Date.now() });
      // Ignores events of a replaced stream, and those after the end: they would hide a loss.
      const guarded = (act) => (value) => {
        if (conn !== current || current.ended) return;
        current.heard = Date.now();
        act(value);
        wake();
      };
      const end = guarded(() => (current.ended = true));
      try {
        // If a proxy turns the stream into a plain read, the server answers the read at once.
        const url = `${endpoint}read?${form(values)}&timeout=0`;
        current.source = open(url, guarded((answer) => current.received.push(answer)), values);
        current.source.onopen = () => {
          current.isOpen = true;
          if (conn === current) onOpen();
        };
        current.source.onerror = current.source.onclose = end;
        current.source.onmissed = () => {
          current.began = 0; // no fault of the stream
          end();
        };
      } catch {
        end(); // the page's policy may forbid streams
      }
    }

    function close() {
      conn?.source?.close();
      conn = null;
      wake();
    }

    // isShort: the stream is not known to have lived for 20 seconds. A proxy may block or cut it.
    function fail() {
      const isShort = !(conn.heard - conn.began >= 20000);
      close();
      throw Object.assign(new Error("the stream ended"), { isShort });
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
        if (conn?.timedOut) fail(); // it lost what a read brought
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
      if (current.ended || !current.isOpen) fail();
      current.timedOut = true;
      current.timeoutMs = Math.min(2 * current.timeoutMs, 40000);
    }
    return { next, close, isOpen: () => conn?.isOpen && !conn.ended };
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
    source.addEventListener("missed", () => source.onmissed());
    source.addEventListener("reset", () => source.onmissed());
    return source;
  }

  // Transports, best first. call(url, form, signal) returns a promise of the server's answer. A
  // transport with streams also has a reader: next(values) returns a promise of the answer that a
  // long poll would get, close() closes the stream, and isOpen() returns whether it is open.
  const transports = [
    { name: "websocket", needs: "WebSocket", call: post, reader: stream(openSocket) },
    { name: "eventsource", needs: "EventSource", call: post, reader: stream(openEvents) },
    { name: "fetch", needs: "fetch", call: post },
    { name: "jsonp", needs: "document", call: loadScript },
  ];

  // Returns the value that an earlier page of this tab left under this key. Replaces it if there is
  // a new one. The keys are "speak", for the transport that the page fell back to; "speak URL",
  // for endpoints that did not answer; and one for the member of each room.
  function kept(key, value) {
    try {
      const old = sessionStorage.getItem(key);
      if (value != null) sessionStorage.setItem(key, value);
      return old;
    } catch {} // storage may be forbidden
  }

  // Every call has a time limit: a network that loses a call does not report it.
  async function ask(transport, url, values, ms = 10000, controller = new AbortController()) {
    const timer = setTimeout(() => controller.abort(new Error("timed out")), ms);
    try {
      const answer = await transport.call(url, form(values), controller.signal);
      // The call may have been made, as if its answer was lost.
      if (answer.error === "outcome_unknown") answer.status = 0;
      if (answer.error)
        throw Object.assign(new SpeakError(answer.detail), answer, { name: answer.error });
      return answer;
    } finally {
      clearTimeout(timer);
    }
  }

  function poll(transport, endpoint) {
    let controller;
    async function next(values) {
      // A script that waits for messages would delay the page's load event.
      if (transport.call === loadScript && document.readyState !== "complete")
        return pause(2000);
      controller = new AbortController();
      return ask(transport, `${endpoint}read`, values, 40000, controller);
    }
    return { next, close: () => controller?.abort() };
  }

  // The server did not do what it was asked for, but may do it later.
  const isTransient = ({ status }) => /408|429|^5/.test(status);

  /** @type {import("./speak").join} */
  function join(room, options = {}) {
    const { endpoint: urls = "auto", transport: only = "auto" } = options;
    const { history = true, inbox = true, share = true } = options;
    const server = base(options.server ?? Speak.server);
    const { protocol, hostname } = new URL(server);
    const isAuto = urls === "auto";
    const endpoints = [isAuto ? server : urls].flat().map(base).reverse();
    // Endpoints to use instead if the same server answers there. The best one is first.
    const better = !isAuto ? endpoints.slice(1).reverse()
      : /https/.test(protocol + location.protocol) ? [] : [`http://${hostname}:7732/`];
    let candidates = transports.filter(({ name, needs }) =>
      globalThis[needs] && (only === "auto" || only === name));
    const preferred = candidates.findIndex(({ name }) => name === kept("speak"));
    if (preferred > 0) candidates = candidates.slice(preferred);
    let failures = 0; // of calls, in a row
    let doubts = 0; // number of streams in a row that were short
    let name = oneLine(options.name);
    const hasInbox = name && inbox;
    const place = JSON.stringify(["speak", server, room]);
    let key = place + name; // of the tabs that share the member

    let endpoint, transport, latency, reader, lifetime, bus, retryNow, attempt;
    let isLeader; // a boolean as soon as it is known
    let checkedAt; // time of the last check() or at which the page was hidden
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
    const isReady = () => epoch && !failures && !is("left") && isIn();

    // Handlers that are set after join() miss no event, and a handler that throws stops nothing.
    const emit = (kind, event) => is("left") || queueMicrotask(() => chat[`on${kind}`]?.(event));

    function report(change, read) {
      const state = { ...chat.state, latency, error: undefined, retryIn: undefined, ...change };
      if (JSON.stringify(state) !== JSON.stringify(chat.state)) emit("state", state);
      chat.state = state;
      broadcastState(read);
      notifyWaiters();
    }

    const reportConnected = (read) =>
      report({ state: "connected", endpoint, transport: transport.name }, read);

    const nextChange = () => new Promise((resolve) => waiters.push(resolve));
    const notifyWaiters = () => waiters.splice(0).forEach((resolve) => resolve());

    async function call(path, values, ...limits) {
      const began = Date.now();
      const answer = await ask(transport, endpoint + path, values, ...limits);
      latency = Date.now() - began;
      return answer;
    }

    const write = (channel, message) => call("write", { channel, message, ...me });
    const introduce = (text) =>
      call("introduce",
        { channel: room, message: hasInbox ? `${text}\n${pair.write}` : text, ...me });

    const position = () => `${epoch} ${cursor}`;
    const readValues = (timeout) =>
      ({ channel: hasInbox ? [room, pair.read] : room, from_id: cursor, epoch, timeout,
        grace: 2, ...me });

    // Finds an endpoint and a transport that work. The test is /create: it changes nothing.
    async function connect() {
      let failure;
      for (endpoint of endpoints) {
        let failed; // transports with the same call fail together
        for (transport of candidates) {
          if (transport.call === failed) continue;
          try {
            const answer = await call("create", {}, 10000, (attempt = new AbortController()));
            pair ??= answer;
            candidates = candidates.filter(({ call }) => call === transport.call);
            openReader();
            return;
          } catch (error) {
            if (error.name === "AbortError") throw error;
            failed = transport.call;
            failure = error;
          }
        }
      }
      throw failure;
    }

    function openReader() {
      reader?.close();
      reader = (transport.reader ?? poll)(transport, endpoint, reportConnected);
      isStale = true;
    }

    // Moves to the first of these endpoints at which the same server answers.
    async function probe(urls) {
      for (const url of urls) {
        const key = `speak ${url}`;
        if (kept(key)) continue;
        const values = { channel: "?", timeout: 0 };
        const answer = await ask(transport, `${url}read`, values, 3000).catch(() => {});
        if (answer?.epoch === epoch) {
          // A WebSocket that is closed before it opens puts its address with its secrets into the
          // console.
          await pause(1000);
          if (!reader) return;
          endpoint = url;
          return openReader();
        }
        kept(key, "no");
      }
    }

    // Changes to the next transport. A proxy may refuse, cut or buffer streams.
    function downgrade() {
      doubts = 0;
      candidates = candidates.slice(1);
      kept("speak", candidates[0].name);
      closeReader();
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
        doubts = 0; // the server restarted
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
      for (let endings = 0; !signal.aborted; ) {
        const credentials = me;
        const from = position();
        if (is("waiting")) report({ state: "connecting" });
        try {
          if (!reader) await connect();
          else if (!isLeader && !(isLeader === false && isStale && isIn())) await nextChange();
          else if (!isIn()) {
            const { connection, auth } = await introduce(name);
            me = { connection, auth };
            ownConnections.add(connection);
          } else {
            const answer = await (isStale
              ? call("read", readValues(0), Date.now() - checkedAt < 1000 ? 2500 : 10000,
                (attempt = new AbortController()))
              : reader.next(readValues(25)));
            if (signal.aborted) return;
            if (!answer) {
              isStale = true; // a read may know more than the silent stream
              continue;
            }
            applyAnswer(from, answer);
            isStale = cursor.includes(0) || (!isLeader && from !== position());
            failures = endings = 0;
            const read = { from, answer };
            // A stream that is not open yet reports when it opens.
            if (isLeader && transport.reader && !reader.isOpen()) report({}, read);
            else reportConnected(read);
            if (doubts > 1 && candidates[1]) downgrade();
            else if (better[0] && transport.call === post) probe(better.splice(0));
          }
        } catch (error) {
          if (signal.aborted) return;
          if (error.name === "AbortError") continue; // by check()
          if (forgetConnection(error, credentials)) {
            if (!endings++) continue;
          } else if (error.status && !isTransient(error)) return finish(error);
          isStale = true;
          // An unreachable server is no reason to doubt a transport.
          doubts = error.isShort ? doubts + 1 : 0;
          if (error.isShort === undefined && ++failures > 1) closeReader();
          const retryIn = (0.5 + Math.random()) *
            Math.min(250 * 2 ** Math.max(failures, doubts, 1), 30000);
          // A stream that ends says nothing about the server: the next read does.
          if (failures || doubts > 2) report({ state: "waiting", retryIn, error: error.message });
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
      let isHeld;
      for (let attempts = 0; ; ) {
        while (isHeld || !isReady()) {
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
          if (isTransient(error)) {
            isHeld = true;
            pause(1000 * error.retryAfter || 1000).then(() => notifyWaiters((isHeld = false)));
            continue;
          }
          if (error.status || item.to || ++attempts > 4) throw error;
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
      if (isLeader) {
        if (data) check();
        broadcastState();
      } else if (data.pair) {
        isLeader = false;
        ({ me, ownConnections, pair, name } = data);
        if (data.answer) applyAnswer(data.from, data.answer);
        isStale ||= data.now !== position();
        notifyWaiters();
      }
    }

    // Finds out within three seconds if the server can be reached, and replaces the stream, which
    // may have died unnoticed.
    function check() {
      checkedAt = Date.now();
      isStale = true;
      retryNow?.();
      attempt?.abort();
      reader?.close();
      notifyWaiters();
    }

    function onWakeUp() {
      bus?.postMessage(1); // the leader's tab may be asleep
      check();
    }

    function start() {
      lifetime = new AbortController();
      const { signal } = lifetime;
      // The member of an earlier page of the tab. A copy of the tab, which would use the same
      // connection, finds nothing.
      const member = JSON.parse(kept(place) || "{}");
      if (member.key === key || member.name === name) {
        ({ me, pair, name, key } = member);
        kept(place, "");
      }
      const lead = () => {
        isLeader = true;
        notifyWaiters();
        return new Promise((resolve) => (signal.onabort = resolve));
      };
      if (share && navigator.locks && globalThis.BroadcastChannel) {
        bus = new BroadcastChannel(key);
        bus.onmessage = onTabMessage;
        bus.postMessage(0);
        navigator.locks.request(key, { signal }, lead).catch(() => signal.aborted || lead());
      } else lead();
      const onHint = () => Date.now() - checkedAt < 5000 || onWakeUp();
      addEventListener("online", onWakeUp, { signal });
      addEventListener("visibilitychange",
        () => document.hidden ? (checkedAt = Date.now()) : onHint(), { signal });
      // A change of speed is reported too, also one that a long answer causes.
      navigator.connection?.addEventListener("change",
        () => is("connecting") || onHint(), { signal });
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
      if (me) kept(place, JSON.stringify({ me, pair, name, key }));
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
