// A browser, a network and a clock for speak.js, all in one process and all in the test's hand.

import { readFileSync } from "node:fs";
import vm from "node:vm";
import { Server } from "./fake_server.mjs";

const source = new vm.Script(readFileSync(new URL("../../../src/web/speak.js", import.meta.url), "utf8"), {
  filename: "speak.js",
});

export const HOME = "http://speak.test:8080/";
export const DIRECT = "http://speak.test:7732/";
const LATENCY = 5;

/** Whether a chat is connected, for the clock to wait for. */
export const connected = (chat) => () => chat.state.state === "connected";

class Clock {
  now = 1_700_000_000_000;
  #timers = new Map();
  #count = 0;

  setTimeout = (act, ms = 0) => {
    this.#timers.set(++this.#count, { act, at: this.now + ms, count: this.#count });
    return this.#count;
  };

  clearTimeout = (number) => this.#timers.delete(number);

  /** Lets this much time pass, and everything happen that is due in it. */
  async pass(ms) {
    const end = this.now + ms;
    for (;;) {
      await settled();
      const [next] = [...this.#timers.values()].sort((one, other) => one.at - other.at || one.count - other.count);
      if (!next || next.at > end) break;
      this.now = Math.max(this.now, next.at);
      this.#timers.delete(next.count);
      next.act();
    }
    this.now = end;
  }

  /** Lets time pass until something holds. */
  async until(holds, what = holds) {
    for (let steps = 0; !holds(); steps++) {
      if (steps > 20_000) throw new Error(`never came true: ${what}`);
      await this.pass(10);
    }
  }
}

// All promises that can go on have gone on.
const settled = () => new Promise((resolve) => setImmediate(resolve));

export class World {
  clock = new Clock();
  isUp = true;
  blocksFetch = false; // as CORS does: the request arrives, the answer is withheld
  doors = new Map([[HOME, "open"]]); // "open", "closed" or "silent"
  requests = [];
  isMute = false; // whether tabs hear each other not
  random = 0.5; // pauses are as long as they are meant
  #pending = new Set();
  #locks = new Map();
  #channels = new Set();

  constructor(options) {
    this.server = new Server(this.clock, options);
  }

  /**
   * What becomes of a request: null, "lost" (it never arrives), "unanswered" (its answer is lost), "silent"; of a stream
   * also "stripped" (a proxy makes a plain read of it), "held" (it opens, and nothing comes).
   */
  fate = () => null;

  /** Requests of this path, as objects. */
  asked(path) {
    return this.requests.filter((request) => request.path === path);
  }

  /** Takes the network away: nothing arrives, and what waits breaks. */
  cut() {
    this.isUp = false;
    for (const broken of [...this.#pending]) broken.breakOff();
  }

  restart() {
    this.server.restart();
  }

  send({ url, query, kind, page }, reply, fail) {
    const { origin, pathname } = new URL(url);
    const request = { door: `${origin}/`, path: pathname.slice(1), kind, page, query, at: this.clock.now };
    Object.assign(request, Object.fromEntries(query));
    this.requests.push(request);
    const fate = this.fate(request);
    let isDone = false;
    let hangUp;
    const end = (act) => (value) => {
      if (isDone) return;
      isDone = true;
      this.#pending.delete(request);
      this.clock.setTimeout(() => act(value), LATENCY);
    };
    request.breakOff = () => {
      hangUp?.();
      end(fail)();
    };
    const isDeaf = () => this.doors.get(request.door) === "silent" || fate === "silent";
    this.#pending.add(request);
    this.clock.setTimeout(() => {
      if (isDone || isDeaf()) return;
      const isReached = this.isUp && this.doors.get(request.door) === "open" && fate !== "lost";
      if (!isReached) return end(fail)();
      if (request.path === "image-test") return end(reply)();
      const isWithheld = fate === "unanswered" || (kind === "fetch" && this.blocksFetch);
      hangUp = this.server.call(request.path, query, end(isWithheld ? fail : reply), end(fail));
    }, LATENCY);
    return request.breakOff;
  }

  /** A stream: open(), tell(answer, from) of what comes, end() when it breaks. Returns how to close it. */
  follow({ url, kind, page }, { open, tell, end }) {
    const { origin, pathname, searchParams: query } = new URL(url.replace(/^ws/, "http"));
    const request = { door: `${origin}/`, path: pathname.slice(1), kind, page, query, at: this.clock.now };
    this.requests.push(request);
    const fate = this.fate(request);
    const later = (act) => (...values) => this.clock.setTimeout(() => isDone || act(...values), LATENCY);
    const over = () => {
      isDone = true;
      this.#pending.delete(request);
    };
    const fail = later(() => {
      over();
      end();
    });
    let isDone = false;
    let hangUp;
    request.breakOff = () => {
      hangUp?.();
      fail();
    };
    this.#pending.add(request);
    later(() => {
      if (fate === "silent") return;
      if (!this.isUp || this.doors.get(request.door) !== "open" || fate === "lost") return fail();
      if (fate === "stripped") return void (hangUp = this.server.call("read", query, fail, fail));
      later(open)();
      try {
        hangUp = this.server.follow(query, fate === "held" ? () => {} : later(tell), fail);
      } catch (error) {
        if (!error.refusal) throw error;
        fail();
      }
    })();
    return () => {
      over();
      hangUp?.();
    };
  }

  /** Opens a page with the client loaded. */
  page(options) {
    return new Page(this, options);
  }

  /** What a promise brings, in the time that it needs. */
  async brings(promise) {
    let end;
    promise.then((value) => (end = () => value), (error) => (end = () => { throw error; }));
    await this.clock.until(() => end, "a promise");
    return end();
  }

  /** A lock as navigator.locks gives it. */
  lock(name, { signal }, hold, places) {
    const line = this.#locks.get(name) ?? [];
    this.#locks.set(name, line);
    return new Promise((resolve, reject) => {
      const leave = () => {
        const at = line.indexOf(place);
        if (at < 0) return;
        line.splice(at, 1);
        if (at === 0) line[0]?.grant();
      };
      const grant = () => {
        if (place.isGranted || line[0] !== place) return;
        place.isGranted = true;
        hold().then(resolve, reject).then(leave);
      };
      const place = { leave, grant };
      signal.addEventListener("abort", () => {
        if (place.isGranted) return;
        leave();
        reject(signal.reason);
      });
      places.add(place);
      line.push(place);
      this.clock.setTimeout(grant);
    });
  }

  broadcast(sender, data) {
    if (this.isMute) return;
    for (const channel of this.#channels) {
      if (channel === sender || channel.name !== sender.name) continue;
      const copy = structuredClone(data);
      this.clock.setTimeout(() => this.#channels.has(channel) && channel.onmessage?.({ data: copy }));
    }
  }

  open(channel) {
    this.#channels.add(channel);
  }

  shut(channel) {
    this.#channels.delete(channel);
  }
}

/** What an event stream makes of an answer: [name of the event, what it carries], in order. */
function events({ epoch, channels, ...only }, from) {
  const parts = channels ?? [only];
  const cursors = [...from];
  return parts.flatMap(({ channel, messages, next_id, missed, reset }, i) => {
    const named = channel && { channel };
    if (reset) cursors[i] = 0;
    const lost = missed || reset ? [[missed ? "missed" : "reset", { data: JSON.stringify({ ...named }), lastEventId: `${epoch}:${cursors}` }]] : [];
    const told = messages.map((message) => {
      cursors[i] = message === messages.at(-1) ? next_id : message.id + 1;
      return ["message", { data: JSON.stringify({ ...named, ...message }), lastEventId: `${epoch}:${cursors}` }];
    });
    return [...lost, ...told];
  });
}

class Page {
  errors = [];
  streams = new Set(); // that are open
  #listeners = new Map();
  #open = new Set();
  #channels = new Set();
  #places = new Set();
  #isGone = false;

  constructor(world, { src = `${HOME}speak.js`, origin = "http://page.test", without = [], streams = [], storage } = {}) {
    this.world = world;
    const { clock } = world;
    const page = this;
    const globals = {
      console, URL, URLSearchParams, AbortController,
      // A browser reports what is thrown here, and goes on.
      queueMicrotask: (act) => Promise.resolve().then(act).catch((error) => this.errors.push(error.message)),
      setTimeout: clock.setTimeout,
      clearTimeout: clock.clearTimeout,
      location: new URL(`${origin}/room`),
      fetch: (url, options) => this.#fetch(url, options),
      document: {
        hidden: false,
        currentScript: { src },
        createElement: (kind) => ({ kind, remove() { this.isRemoved = true; } }),
        head: { append: (element) => this.#load(element) },
      },
      navigator: {
        sendBeacon: (url, query) => world.send({ url, query, kind: "beacon", page }, () => {}, () => {}),
        locks: {
          request: (name, options, hold) => world.lock(name, options, hold, this.#places),
        },
      },
      BroadcastChannel: class {
        constructor(name) {
          this.name = name;
          world.open(this);
          page.#channels.add(this);
        }
        postMessage(data) {
          world.broadcast(this, data);
        }
        close() {
          world.shut(this);
        }
      },
      addEventListener: (type, listener, { signal, once } = {}) => {
        const list = this.#listeners.get(type) ?? new Set();
        this.#listeners.set(type, list);
        const act = (event) => {
          if (once) list.delete(act);
          listener(event);
        };
        list.add(act);
        signal?.addEventListener("abort", () => list.delete(act));
      },
    };
    if (streams.includes("websocket")) globals.WebSocket = this.#socket();
    if (streams.includes("eventsource")) globals.EventSource = this.#source();
    if (storage) globals.sessionStorage = storage;
    for (const name of without) delete (name === "locks" ? globals.navigator : globals)[name];
    let count = 0; // names stay unique
    globals.test = { now: () => clock.now, random: () => world.random + count++ * 1e-12 };
    this.globals = vm.createContext(globals);
    vm.runInContext("Date.now = test.now; Math.random = test.random", this.globals);
    source.runInContext(this.globals);
    this.globals.document.currentScript = null;
  }

  /** Joins, and keeps what is told: messages, lists of members, states, … */
  join(room, options) {
    const chat = this.globals.Speak.join(room, options);
    const told = { messages: [], members: [], states: [], missed: 0, errors: [] };
    chat.onmessage = (message) => told.messages.push(message);
    chat.onmembers = (members) => told.members.push(Array.from(members, ({ name }) => name));
    chat.onstate = (state) => told.states.push({ ...state, at: this.world.clock.now });
    chat.onmissed = () => told.missed++;
    chat.onerror = (error) => told.errors.push(error);
    return Object.assign(chat, {
      told,
      names: () => Array.from(chat.members, ({ name }) => name),
      texts: () => told.messages.filter(({ type }) => type === "message").map(({ text }) => text),
    });
  }

  event(type) {
    for (const act of [...(this.#listeners.get(type) ?? [])]) act({ type });
  }

  listens(type) {
    return !!this.#listeners.get(type)?.size;
  }

  /** What the browser does when a tab is closed. */
  close() {
    this.event("pagehide");
    this.crash();
  }

  /** The same without a word. */
  crash() {
    this.#isGone = true;
    for (const breakOff of this.#open) breakOff();
    for (const channel of this.#channels) channel.close();
    for (const place of this.#places) place.leave();
    this.#places.clear();
  }

  #send(kind, url, query, reply, fail) {
    if (this.#isGone) return () => {};
    const breakOff = this.world.send({ url, query, kind, page: this }, reply, fail);
    this.#open.add(breakOff);
    return breakOff;
  }

  #fetch(url, { body, signal }) {
    return new Promise((resolve, reject) => {
      const breakOff = this.#send("fetch", url, new URLSearchParams(body), (answer) => resolve({ json: async () => answer }), () => reject(new TypeError("Failed to fetch")));
      signal.addEventListener("abort", () => {
        reject(signal.reason);
        breakOff();
      });
    });
  }

  #follow(kind, url, acts) {
    if (this.forbids) throw new Error("SecurityError");
    const close = this.world.follow({ url, kind, page: this }, {
      ...acts,
      end: () => {
        this.streams.delete(close);
        acts.end();
      },
    });
    this.streams.add(close);
    this.#open.add(close);
    return () => {
      this.streams.delete(close);
      this.#open.delete(close);
      close();
    };
  }

  #socket() {
    const page = this;
    return class {
      #close;
      constructor(url) {
        this.#close = page.#follow("websocket", url, {
          open: () => this.onopen(),
          tell: (answer) => this.onmessage({ data: JSON.stringify(answer) }),
          end: () => {
            this.onerror();
            this.onclose();
          },
        });
      }
      close() {
        this.#close();
        page.world.clock.setTimeout(() => this.onclose(), LATENCY);
      }
    };
  }

  #source() {
    const page = this;
    return class extends EventTarget {
      #close;
      constructor(url) {
        super();
        this.#close = page.#follow("eventsource", url, {
          open: () => this.onopen(),
          tell: (answer, from) => {
            for (const [type, values] of events(answer, from)) {
              page.world.clock.setTimeout(() => {
                if (this.isClosed) return;
                if (type === "message") this.onmessage(values);
                else this.dispatchEvent(new Event(type));
              });
            }
          },
          end: () => this.onerror(),
        });
      }
      close() {
        this.isClosed = true;
        this.#close();
      }
    };
  }

  #load(element) {
    const { searchParams, href } = new URL(element.src);
    const isScript = element.kind === "script";
    this.#send(
      isScript ? "jsonp" : "image", href.split("?")[0], searchParams,
      (answer) => {
        const callback = this.globals[searchParams.get("callback")];
        if (isScript && !callback) this.errors.push("a script found no callback");
        if (isScript) callback?.(answer);
        element.onload({ type: "load" });
      },
      () => element.onerror({ type: "error" }),
    );
  }
}
