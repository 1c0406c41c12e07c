// A browser, a network and a clock for speak.js, all in one process and all in the test's hand.

import { readFileSync } from "node:fs";
import vm from "node:vm";
import { Server } from "./server.mjs";

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

  /** What becomes of a request: null, "lost" (it never arrives), "unanswered" (its answer is lost), "silent". */
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

class Page {
  errors = [];
  #listeners = new Map();
  #open = new Set();
  #channels = new Set();
  #places = new Set();
  #isGone = false;

  constructor(world, { src = `${HOME}speak.js`, origin = "http://page.test", without = [] } = {}) {
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
