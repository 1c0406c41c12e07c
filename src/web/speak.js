// Speak in a browser: const chat = Speak.join("lobby", { name: "Josh" }). See speak.d.ts.
(() => {
  "use strict";

  class SpeakError extends Error {}

  const unique = () => `_${Math.random().toString(36).slice(2)}${Date.now()}`;
  const oneLine = (text = "") => `${text}`.replace(/\s+/g, " ").trim();
  const base = (url) => new URL(url, location.href).href.replace(/\/*$/, "/");

  function form(values) {
    const fields = Object.entries(values).flatMap(([key, value]) => [value ?? []].flat().map((one) => [key, one]));
    return new URLSearchParams(fields);
  }

  // Scripts bring answers from anywhere; a picture tells that a door is open.
  const load = (kind) => (url, query, signal) =>
    new Promise((resolve, reject) => {
      const element = document.createElement(kind);
      const callback = unique();
      query.append("callback", callback);
      query.append("_", callback);
      globalThis[callback] = resolve;
      // It cannot be stopped, so the callback stays until the script has come, however late.
      element.onload = element.onerror = ({ type }) => {
        delete globalThis[callback];
        element.remove();
        if (kind === "img" && type === "load") resolve({});
        reject(new Error("nothing loaded"));
      };
      signal.onabort = () => reject(signal.reason);
      element.referrerPolicy = "no-referrer";
      element.src = `${url}?${query}`;
      document.head.append(element);
    });

  // A form by POST needs no preflight, and leaves no secret in logs and caches.
  async function post(url, body, signal) {
    const how = { method: "POST", credentials: "omit", cache: "no-store", referrerPolicy: "no-referrer" };
    return (await fetch(url, { ...how, body, signal })).json();
  }

  // A stream says by itself what reads would answer. next(asked) is the next of that, for as long as it is asked for what
  // the stream says next; else it is opened anew. Nothing, after a silence in which something may have been lost.
  const stream = (open) => (_, door) => {
    let line; // { asked, from, told, source, patience, isUnfit, isSilent, isOver }, of what is open
    let wake = () => {};

    function begin(asked) {
      const from = JSON.stringify(asked);
      const mine = (line = { asked, from, told: [], patience: 3000, isUnfit: true }); // until it has opened
      // What comes after its end would hide that something was lost.
      const heed = (act) => (value) => {
        if (line !== mine || mine.isOver) return;
        act(value);
        wake();
      };
      const end = heed(() => (mine.isOver = true));
      try {
        // Where a proxy makes a plain read of it, that one is answered at once.
        mine.source = open(`${door}read?${form(asked)}&timeout=0`, asked, heed((answer) => mine.told.push(answer)));
        mine.source.onopen = () => (mine.isUnfit = false);
        mine.source.onerror = mine.source.onclose = end;
      } catch {
        end(); // a policy of the page may forbid it
      }
    }

    function close() {
      line?.source?.close();
      line = null;
      wake();
    }

    function breakOff(isUnfit) {
      close();
      throw Object.assign(new Error("the stream broke off"), { isUnfit });
    }

    function shift() {
      const answer = line.told.shift();
      const from_id = parts(answer).map((part) => part.next_id);
      line.from = JSON.stringify({ ...line.asked, from_id, epoch: answer.epoch });
      line.patience = 40000;
      line.isSilent = false;
      return answer;
    }

    async function next({ timeout, ...asked }) {
      const isNext = () => line?.from === JSON.stringify(asked);
      while (line?.told[0] && !isNext()) shift(); // a read was faster
      if (!isNext()) {
        if (line?.isSilent) breakOff(true);
        close();
        begin(asked);
      }
      const mine = line;
      if (!mine.told[0] && !mine.isOver) {
        const timer = setTimeout(() => wake(), mine.patience * (1 + Math.random()));
        await new Promise((resolve) => (wake = resolve));
        clearTimeout(timer);
      }
      if (mine !== line) return;
      if (mine.told[0]) return shift();
      if (mine.isOver || mine.isUnfit) breakOff(mine.isUnfit);
      mine.isSilent = true;
      mine.patience = Math.min(2 * mine.patience, 40000);
    }
    return { next, close };
  };

  const parts = (answer) => answer.channels ?? [answer];

  function openSocket(url, asked, tell) {
    const socket = new WebSocket(url.replace("http", "ws"));
    socket.onmessage = ({ data }) => tell(JSON.parse(data));
    return socket;
  }

  function openEvents(url, asked, tell) {
    const source = new EventSource(url);
    const names = [asked.channel].flat();
    source.onmessage = ({ data, lastEventId }) => {
      const { channel = names[0], ...message } = JSON.parse(data);
      const [epoch, cursors] = lastEventId.split(":");
      const part = (next_id, i) => ({ messages: channel === names[i] ? [message] : [], next_id: +next_id });
      tell({ channels: cursors.split(",").map(part), epoch });
    };
    // A read tells better what was lost.
    source.addEventListener("missed", () => source.onerror());
    source.addEventListener("reset", () => source.onerror());
    return source;
  }

  // The ways to call, best first: call(url, form, signal) is a promise of the server's answer. One that streams has a
  // reader too: next(asked) is a promise of what a waiting /read would answer, and close() ends it.
  const transports = [
    { name: "websocket", needs: "WebSocket", call: post, reader: stream(openSocket) },
    { name: "eventsource", needs: "EventSource", call: post, reader: stream(openEvents) },
    { name: "fetch", needs: "fetch", call: post },
    { name: "jsonp", needs: "document", call: load("script") },
  ];
  const picture = { call: load("img") };

  // What has worked on this page, or will: for the next one.
  function remembered(way) {
    try {
      return way ? sessionStorage.setItem("speak", way) : sessionStorage.getItem("speak");
    } catch {} // storage may be forbidden
  }

  // Every call ends, for a network that lost one does not tell.
  async function ask(transport, url, values, ms = 10000, limit = new AbortController()) {
    const timer = setTimeout(() => limit.abort(new Error("no answer")), ms);
    try {
      const answer = await transport.call(url, form(values), limit.signal);
      if (answer.error) throw Object.assign(new SpeakError(answer.detail), answer, { name: answer.error });
      return answer;
    } finally {
      clearTimeout(timer);
    }
  }

  function poll(transport, door) {
    let limit;
    return {
      next: (asked) => ask(transport, `${door}read`, asked, 40000, (limit = new AbortController())),
      close: () => limit?.abort(),
    };
  }

  /** @type {import("./speak").join} */
  function join(room, options = {}) {
    const { door: wanted = "auto", transport: way = "auto", history = true, inbox = true, share = true } = options;
    const server = base(options.server ?? Speak.server);
    const { protocol, hostname } = new URL(server);
    const direct = protocol === "http:" ? [`http://${hostname}:7732/`] : [];
    const doors = wanted === "auto" ? [...direct, server] : [wanted].flat().map(base);
    let ways = transports.filter(({ name, needs }) => globalThis[needs] && (way === "auto" || way === name));
    const best = ways.findIndex((its) => its.name === remembered());
    if (best > 0) ways = ways.slice(best);
    let doubts = 0; // how often in a row a stream broke off at once, or lost something
    let name = oneLine(options.name);
    const hasInbox = name && inbox;
    const key = JSON.stringify(["speak", server, room, name]);

    let door, transport, latency, reader, visit, bus, isLeader, rouse;
    const waiting = [];

    let me; // { connection, auth } while introduced
    let pair; // our inbox, { read, write }
    let own = new Set(); // all the connections that we were
    const names = new Map(); // by connection, of those who left too
    const members = new Map();

    let epoch;
    let isBehind = true;
    const cursor = hasInbox ? [0, 0] : [0]; // where to read on: room, inbox
    const shown = [0, 0]; // what is below was told, also when the cursor goes back

    let saying; // on its way
    let said = 0; // the id of the last that arrived
    let turn = Promise.resolve();

    const chat = {
      room,
      state: { state: "connecting" },
      members: [],
      me: null,
      say(text) {
        text = form({ text: `${text}` }).get("text"); // as it will come back
        return send({ text, act: () => write(room, text) });
      },
      async whisper(member, text) {
        const to = members.get(member.connection ?? member);
        if (!to?.inbox) throw new Error("gone, or takes no whispers");
        const sent = await send({ to, act: () => write(to.inbox, text) });
        const mine = { ...sent, type: "message", time: Date.now(), from: me?.connection, message: text };
        if (!to.own) hear(mine, true, true, to);
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
    const isReady = () => isIn() && is("connected");

    // Handlers set after join miss nothing, and one that throws stops nothing.
    const emit = (kind, event) => is("left") || queueMicrotask(() => chat[`on${kind}`]?.(event));

    function report(change, read) {
      const state = { ...chat.state, latency, error: undefined, retryIn: undefined, ...change };
      if (JSON.stringify(state) !== JSON.stringify(chat.state)) emit("state", state);
      chat.state = state;
      tellTabs(read);
      tellNews();
    }

    const news = () => new Promise((resolve) => waiting.push(resolve));
    const tellNews = () => waiting.splice(0).forEach((resolve) => resolve());

    async function call(path, values) {
      const began = Date.now();
      const answer = await ask(transport, door + path, values);
      latency = Date.now() - began;
      return answer;
    }

    const write = (channel, message) => call("write", { channel, message, ...me });
    const introduce = (text) =>
      call("introduce", { channel: room, message: hasInbox ? `${text}\n${pair.write}` : text, ...me });

    const place = () => `${epoch} ${cursor}`;
    const asked = (timeout) => {
      const channel = hasInbox ? [room, pair.read] : room;
      return { channel, from_id: cursor, epoch, timeout, ...me };
    };

    // Takes the first door and way that work. Asking for a pair changes nothing, so that is the trial.
    async function connect() {
      let failure;
      for (door of doors) {
        if (door !== doors.at(-1) && !(await ask(picture, `${door}image-test`, {}, 2000).catch(() => {}))) continue;
        const failed = new Set();
        for (transport of ways) {
          if (failed.has(transport.call)) continue;
          try {
            const answer = await call("create", {});
            pair ??= answer;
            ways = ways.slice(ways.indexOf(transport)).filter((its) => its.call === transport.call);
            reader = (transport.reader ?? poll)(transport, door);
            return;
          } catch (error) {
            failed.add(transport.call);
            failure = error;
          }
        }
      }
      throw failure;
    }

    // A proxy may let no stream pass, or hold back what comes: then there is a next best way.
    function doubt() {
      if (++doubts < 2 || !ways[1]) return false;
      doubts = 0;
      ways = ways.slice(1);
      remembered(ways[0].name);
      drop();
      return true;
    }

    function drop() {
      reader?.close();
      reader = null;
    }

    // After a restart our number may be another's: then it is our secret that is wrong.
    function hasEnded(error, proof) {
      if (!/connection_ended|bad_auth/.test(error.name)) return false;
      if (me === proof) me = null;
      return true;
    }

    // An answer counts only if it begins where we are, so nothing is told twice or skipped.
    function take(from, answer) {
      if (from !== place()) return false;
      const isQuiet = !epoch && !history;
      const isNew = epoch !== answer.epoch; // messages and connections are counted anew
      let hasMoved = isNew;
      if (isNew) {
        names.clear();
        own = new Set(me && [me.connection]);
        said = 0;
      }
      epoch = answer.epoch;
      parts(answer).forEach((part, i) => {
        if (isNew || part.reset) cursor[i] = shown[i] = 0;
        if (part.missed) emit("missed");
        if (!i && !cursor[i]) members.clear();
        for (const message of part.messages) {
          if (hear(message, i > 0, message.id >= shown[i] && !isQuiet)) hasMoved = true;
        }
        // What was lost may have told who is here: a read from 0 tells it again.
        cursor[i] = part.missed ? 0 : part.next_id;
        shown[i] = Math.max(shown[i], part.next_id);
      });
      if (hasMoved) {
        chat.members = [...members.values()].sort((one, other) => one.connection - other.connection);
        chat.me = members.get(me?.connection) ?? null;
        emit("members", chat.members);
      }
      return true;
    }

    // Whether it changes who is here.
    function hear({ message: text = "", ...rest }, whisper, isNews, to) {
      const { id, type, from } = rest;
      const isTalk = type === "message";
      if (whisper && !isTalk) return false;
      if (type === "introduction") {
        const [who, inbox] = text.split("\n");
        text = who;
        names.set(from, who);
        // Whispers go into pairs alone: else a member could name a room, and have what is whispered to it said there.
        members.set(from, { connection: from, name: who, own: own.has(from), inbox: /^~w/.test(inbox) ? inbox : undefined });
        if (from === me?.connection) name = who; // perhaps another tab changed it
      } else if (!isTalk) {
        members.delete(from);
        if (from === me?.connection) me = null; // a stream goes on without it
      } else if (!whisper && id > said && text === saying?.text && (from ? own.has(from) : !name)) saying.id ??= id;
      if (isNews) {
        emit("message", { ...rest, name: names.get(from), text, own: own.has(from), whisper, to });
      }
      return !isTalk;
    }

    // One step at a time, for as long as the page is there.
    async function follow({ signal }) {
      for (let failures = 0, endings = 0; !signal.aborted; ) {
        const proof = me;
        const from = place();
        if (failures) report({ state: "connecting" });
        try {
          if (!reader) await connect();
          else if (!isLeader && !(isBehind && isIn())) await news();
          else if (!isIn()) {
            const { connection, auth } = await introduce(name);
            me = { connection, auth };
            own.add(connection);
          } else {
            const answer = await (isBehind ? call("read", asked(0)) : reader.next(asked(25)));
            if (signal.aborted) return;
            if (!answer) {
              isBehind = true; // perhaps a read knows more than the silent stream
              continue;
            }
            take(from, answer);
            if (!isBehind) doubts = 0;
            isBehind = cursor.includes(0) || (!isLeader && from !== place());
            failures = endings = 0;
            report({ state: "connected", door, transport: transport.name }, { from, answer });
          }
        } catch (error) {
          if (signal.aborted) return;
          if (hasEnded(error, proof)) {
            if (!endings++) continue;
          } else if (error.status && !/^(408|429|5)/.test(error.status)) return finish(error);
          isBehind = true;
          if (error.isUnfit && doubt()) continue;
          if (++failures > 1) drop();
          const retryIn = Math.min(250 * 2 ** Math.max(failures, doubts), 30000) * (0.5 + Math.random());
          report({ state: "waiting", retryIn, error: error.message });
          await new Promise((resolve) => setTimeout((rouse = resolve), retryIn));
        }
      }
    }

    function send(item) {
      const sent = turn.then(() => deliver(item));
      turn = sent.catch(() => {});
      return sent;
    }

    async function deliver(item) {
      for (let failures = 0; ; ) {
        while (!isReady()) {
          if (is("left")) throw new Error("left");
          await news();
        }
        const proof = me;
        saying = item;
        try {
          const { id } = await item.act();
          if (!item.to) said = id;
          return { id };
        } catch (error) {
          if (hasEnded(error, proof)) {
            if (transport.reader) reader?.close(); // it may be dead, since it did not tell
            continue;
          }
          if (error.status || item.to || ++failures > 4) throw error;
          // It may have arrived: only a read that begins now can tell.
          const check = async () => take(place(), await call("read", asked(0)));
          for (let isSure; !isSure && !is("left"); ) isSure = await check().catch(news);
          if (item.id) return { id: (said = item.id) };
        }
      }
    }

    // Of all tabs one leads; the others take what it reads, and speak in its name.
    function tellTabs(read) {
      const now = isReady() && place();
      if (isLeader && pair) bus?.postMessage({ me, own, pair, name, now, ...read });
    }

    function hearTab({ data }) {
      rouse?.();
      if (isLeader) tellTabs();
      else if (data) {
        ({ me, own, pair, name } = data);
        if (data.answer) take(data.from, data.answer);
        isBehind ||= data.now !== place();
        tellNews();
      }
    }

    function look() {
      rouse?.();
      bus?.postMessage(null); // the tab that leads may sleep
    }

    function start() {
      visit = new AbortController();
      const { signal } = visit;
      const lead = () => {
        isLeader = true;
        tellNews();
        return new Promise((resolve) => (signal.onabort = resolve));
      };
      if (share && navigator.locks && globalThis.BroadcastChannel) {
        bus = new BroadcastChannel(key);
        bus.onmessage = hearTab;
        bus.postMessage(null);
        navigator.locks.request(key, { signal }, lead).catch(() => signal.aborted || lead());
      } else lead();
      addEventListener("online", look, { signal });
      addEventListener("visibilitychange", () => document.hidden || look(), { signal });
      addEventListener("pagehide", hide, { signal });
      follow(visit);
    }

    function stop() {
      visit.abort();
      rouse?.();
      bus?.close();
      bus = isLeader = null;
      isBehind = true;
    }

    function hide() {
      if (isLeader && me) navigator.sendBeacon(`${door}goodbye`, form(me));
      stop();
      reader?.close();
      addEventListener("pageshow", start, { once: true }); // it was only put aside
    }

    function finish(error) {
      if (error) emit("error", error);
      stop();
      report({ state: "left", error: error?.message });
    }

    start();
    return chat;
  }

  const Speak = { join, SpeakError, server: new URL(".", document.currentScript?.src || location.origin).href };
  globalThis.Speak = Speak;
})();
