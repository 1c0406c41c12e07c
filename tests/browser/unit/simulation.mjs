// A browser, a network and a clock for speak.js, in one process and under the test's control.

import { readFileSync } from "node:fs";
import vm from "node:vm";
import { FakeServer, FIELDS } from "./fake_server.mjs";

const source = new vm.Script(
  readFileSync(new URL("../../../src/web/speak.js", import.meta.url), "utf8"),
  { filename: "speak.js" },
);

export const HOME = "http://speak.test:8080/";
export const DIRECT = "http://speak.test:7732/";
const LATENCY_MS = 5;

/** Returns a condition for Clock.until(): the chat is connected. */
export const connected = (chat) => () => chat.state.state === "connected";

class Clock {
  now = 1_700_000_000_000;
  #timers = new Map();
  #count = 0;

  setTimeout = (callback, ms = 0) => {
    this.#timers.set(++this.#count, { callback, at: this.now + ms, count: this.#count });
    return this.#count;
  };

  clearTimeout = (number) => this.#timers.delete(number);

  /** Advances the time, and runs every timer that is due on the way. */
  async advance(ms) {
    const end = this.now + ms;
    for (;;) {
      await runPromises();
      const [next] = [...this.#timers.values()].sort((a, b) => a.at - b.at || a.count - b.count);
      if (!next || next.at > end) break;
      this.now = Math.max(this.now, next.at);
      this.#timers.delete(next.count);
      next.callback();
    }
    this.now = end;
  }

  /** Advances the time until the condition holds. */
  async until(condition, description = condition) {
    for (let steps = 0; !condition(); steps++) {
      if (steps > 20_000) throw new Error(`never came true: ${description}`);
      await this.advance(10);
    }
  }
}

/** Lets every promise continue that can. */
const runPromises = () => new Promise((resolve) => setImmediate(resolve));

export class Simulation {
  clock = new Clock();
  isOnline = true;
  blocksFetch = false; // as CORS does: the request arrives, and the page gets no response
  endpoints = new Map([[HOME, "open"]]); // "open", "closed" or "silent"
  otherServers = new Map(); // by endpoint, if another server answers there
  requests = [];
  dropsBroadcasts = false; // whether messages between tabs are lost
  lockMs = 0; // time until a free lock is granted
  random = 0.5; // pauses have their nominal length
  #pending = new Set();
  #locks = new Map();
  #channels = new Set();

  constructor(options) {
    this.server = new FakeServer(this.clock, options);
  }

  /**
   * Returns the fault of a request: null, "request lost", "response lost" or "silent" (nothing ever
   * comes back). A stream has two more: "plain read" (a proxy turns it into one) and "buffered" (it
   * opens, and no data passes).
   */
  fault = () => null;

  /** Returns after how many milliseconds something between page and server cuts a stream. */
  cut = () => Infinity;

  /**
   * The network of a page changes, and reports nothing: requests that are under way never end,
   * neither for the page nor for the server. New requests arrive.
   */
  changeNetwork(page) {
    for (const request of this.#pending) request.isDead ||= request.page === page;
  }

  /** Returns the requests of this path. */
  requestsTo(path) {
    return this.requests.filter((request) => request.path === path);
  }

  /** Disconnects the network: no request arrives, and those that wait fail. */
  disconnect() {
    this.isOnline = false;
    for (const request of [...this.#pending]) request.abort();
  }

  /** Records and sends a request. Returns a function that aborts it. */
  send({ url, query, kind, page }, onAnswer, onFailure) {
    const { origin, pathname } = new URL(url);
    const at = this.clock.now;
    const request = { endpoint: `${origin}/`, path: pathname.slice(1), kind, page, query, at };
    Object.assign(request, Object.fromEntries(query));
    this.requests.push(request);
    const fault = this.fault(request);
    let isDone = false;
    let closeClient;
    const end = (callback) => (value) => {
      if (isDone || request.isDead) return;
      isDone = true;
      this.#pending.delete(request);
      this.clock.setTimeout(() => callback(value), LATENCY_MS);
    };
    request.abort = () => {
      if (request.isDead) return;
      closeClient?.();
      end(onFailure)();
    };
    const isSilent = () => this.endpoints.get(request.endpoint) === "silent" || fault === "silent";
    this.#pending.add(request);
    this.clock.setTimeout(() => {
      if (isDone || isSilent()) return;
      const isOpen = this.endpoints.get(request.endpoint) === "open";
      if (!this.isOnline || !isOpen || fault === "request lost") return end(onFailure)();
      const isAnswerLost = fault === "response lost" || (kind === "fetch" && this.blocksFetch);
      const onReply = end(isAnswerLost ? onFailure : onAnswer);
      const server = this.otherServers.get(request.endpoint) ?? this.server;
      closeClient = server.call(request.path, query, onReply, end(onFailure));
    }, LATENCY_MS);
    return request.abort;
  }

  /**
   * Opens a stream. Calls onOpen(), onAnswer(answer, from) for what the server sends, and onEnd()
   * when the stream breaks. Returns functions: close(), and send(frame) of a WebSocket, which
   * begins with the read of a frame. The `query` of its request is that of the address until then.
   */
  openStream({ url, kind, page }, { onOpen, onAnswer, onEnd }) {
    const { origin, pathname, searchParams: query } = new URL(url.replace(/^ws/, "http"));
    const at = this.clock.now;
    const request = { endpoint: `${origin}/`, path: pathname.slice(1), kind, page, query, at };
    this.requests.push(request);
    const fault = this.fault(request);
    const delayed =
      (callback) =>
      (...values) =>
        this.clock.setTimeout(() => isDone || request.isDead || callback(...values), LATENCY_MS);
    const finish = () => {
      isDone = true;
      this.#pending.delete(request);
    };
    const fail = delayed(() => {
      finish();
      onEnd();
    });
    let isDone = false;
    let closeClient;
    request.abort = () => {
      if (request.isDead) return;
      closeClient?.();
      fail();
    };
    this.#pending.add(request);
    delayed(() => {
      if (fault === "silent") return;
      const isOpen = this.endpoints.get(request.endpoint) === "open";
      if (!this.isOnline || !isOpen || fault === "request lost") return fail();
      if (fault === "plain read") {
        closeClient = this.server.call("read", query, fail, fail);
        return;
      }
      delayed(onOpen)();
      const ms = this.cut(request);
      if (ms < Infinity) this.clock.setTimeout(() => isDone || request.abort(), ms);
      if (kind === "websocket") return;
      try {
        closeClient = this.server.openStream(query, deliver, fail);
      } catch (error) {
        if (!error.refusal) throw error;
        fail();
      }
    })();
    const deliver = fault === "buffered" ? () => {} : delayed(onAnswer);
    const send = delayed(({ ref, call, ...values }) => {
      if (call !== "read") throw new Error(`a frame with ${call}`);
      const fields = Object.entries(values).flatMap(([key, value]) =>
        [value].flat().map((item) => [key, item]),
      );
      request.query = new URLSearchParams(fields);
      // The first answer comes at once, even if it is empty.
      const answers = [];
      let onNext = (answer) => answers.push(answer);
      try {
        closeClient = this.server.openStream(request.query, (answer) => onNext(answer), fail);
        onNext = deliver;
        deliver({ ref, ...(answers[0] ?? this.server.answerTo(request.query)) });
      } catch (error) {
        if (!error.refusal) throw error;
        deliver({ ref, ...error.refusal });
      }
    });
    const close = () => {
      finish();
      if (!request.isDead) closeClient?.();
    };
    return { close, send };
  }

  /** Opens a page that has loaded the client. */
  openPage(options) {
    return new Page(this, options);
  }

  /** Advances the time until the promise settles. Returns its value, or throws its error. */
  async waitFor(promise) {
    let result;
    promise.then(
      (value) => (result = () => value),
      (error) =>
        (result = () => {
          throw error;
        }),
    );
    await this.clock.until(() => result, "a promise");
    return result();
  }

  /** Requests a lock as navigator.locks.request() does. `requests` are those of the page. */
  lock(name, { signal }, hold, requests) {
    const queue = this.#locks.get(name) ?? [];
    this.#locks.set(name, queue);
    return new Promise((resolve, reject) => {
      const release = () => {
        const at = queue.indexOf(request);
        if (at < 0) return;
        queue.splice(at, 1);
        if (at === 0) queue[0]?.grant();
      };
      const grant = () => {
        if (request.isGranted || queue[0] !== request) return;
        request.isGranted = true;
        hold().then(resolve, reject).then(release);
      };
      const request = { release, grant };
      signal.addEventListener("abort", () => {
        if (request.isGranted) return;
        release();
        reject(signal.reason);
      });
      requests.add(request);
      queue.push(request);
      this.clock.setTimeout(grant, this.lockMs);
    });
  }

  broadcast(sender, data) {
    if (this.dropsBroadcasts) return;
    for (const channel of this.#channels) {
      if (channel === sender || channel.name !== sender.name) continue;
      const copy = structuredClone(data);
      this.clock.setTimeout(
        () => this.#channels.has(channel) && channel.onmessage?.({ data: copy }),
      );
    }
  }

  addChannel(channel) {
    this.#channels.add(channel);
  }

  removeChannel(channel) {
    this.#channels.delete(channel);
  }
}

/** Creates what a browser has as sessionStorage of one tab: a property is an item. */
export const newStorage = (from) =>
  new Proxy(Object.assign(Object.create(null), from), {
    set: (items, key, value) => Reflect.set(items, key, `${value}`),
  });

/** Returns the events of an answer in an event stream, in order: [name of the event, fields]. */
function events({ epoch, channels, ...only }, from) {
  const parts = channels ?? [only];
  const cursors = [...from];
  const fields = (data) => ({ data: JSON.stringify(data), lastEventId: `${epoch}:${cursors}` });
  return parts.flatMap(({ channel, messages, next_id, missed, reset }, i) => {
    const named = channel && { channel };
    if (reset) cursors[i] = 0;
    const losses = missed || reset ? [[missed ? "missed" : "reset", fields({ ...named })]] : [];
    const news = messages.map((message) => {
      cursors[i] = message === messages.at(-1) ? next_id : message.id + 1;
      return ["message", fields({ ...named, ...message })];
    });
    return [...losses, ...news];
  });
}

class Page {
  errors = [];
  streams = new Set(); // functions that close the open streams
  addresses = []; // of all WebSockets
  #listeners = new Map();
  #aborts = new Set();
  #channels = new Set();
  #lockRequests = new Set();
  #isGone = false;

  constructor(simulation, options = {}) {
    const { src = `${HOME}speak.js`, origin = "http://page.test" } = options;
    const { without = [], streams = [], storage = newStorage() } = options;
    Object.assign(this, { simulation, options, storage });
    const { clock } = simulation;
    const page = this;
    const globals = {
      console,
      URL,
      URLSearchParams,
      AbortController,
      // A browser reports an error that is thrown here, and continues.
      queueMicrotask: (callback) =>
        Promise.resolve()
          .then(callback)
          .catch((error) => this.errors.push(error.message)),
      setTimeout: clock.setTimeout,
      clearTimeout: clock.clearTimeout,
      location: new URL(`${origin}/room`),
      fetch: (url, init) => this.#fetch(url, init),
      document: {
        hidden: false,
        readyState: "complete",
        currentScript: { src },
        createElement: (tag) => ({
          tag,
          remove() {
            this.isRemoved = true;
          },
        }),
        head: { append: (element) => this.#load(element) },
      },
      navigator: {
        sendBeacon: (url, query) =>
          simulation.send(
            { url, query, kind: "beacon", page },
            () => {},
            () => {},
          ),
        locks: {
          request: (name, init, hold) => simulation.lock(name, init, hold, this.#lockRequests),
        },
        connection: new EventTarget(),
      },
      BroadcastChannel: class {
        constructor(name) {
          this.name = name;
          simulation.addChannel(this);
          page.#channels.add(this);
        }
        postMessage(data) {
          simulation.broadcast(this, data);
        }
        close() {
          simulation.removeChannel(this);
        }
      },
      addEventListener: (type, listener, { signal, once } = {}) => {
        const list = this.#listeners.get(type) ?? new Set();
        this.#listeners.set(type, list);
        const call = (event) => {
          if (once) list.delete(call);
          listener(event);
        };
        list.add(call);
        signal?.addEventListener("abort", () => list.delete(call));
      },
    };
    if (streams.includes("websocket")) globals.WebSocket = this.#webSocketClass();
    if (streams.includes("eventsource")) globals.EventSource = this.#eventSourceClass();
    globals.sessionStorage = storage;
    for (const name of without) delete (name === "locks" ? globals.navigator : globals)[name];
    let count = 0; // makes random names unique
    globals.test = { now: () => clock.now, random: () => simulation.random + count++ * 1e-12 };
    this.globals = vm.createContext(globals);
    vm.runInContext("Date.now = test.now; Math.random = test.random", this.globals);
    source.runInContext(this.globals);
    this.globals.document.currentScript = null;
  }

  /** Joins a room, and records the chat's events in `received`. */
  join(room, options) {
    const chat = this.globals.Speak.join(room, options);
    const received = { messages: [], members: [], states: [], removals: [], missed: 0, errors: [] };
    chat.onmessage = (message) => received.messages.push(message);
    chat.onremoval = (removal) => received.removals.push(removal);
    chat.onmembers = (list) => received.members.push(Array.from(list, ({ name }) => name));
    chat.onstate = (state) => received.states.push({ ...state, at: this.simulation.clock.now });
    chat.onmissed = () => received.missed++;
    chat.onerror = (error) => received.errors.push(error);
    return Object.assign(chat, {
      received,
      names: () => Array.from(chat.members, ({ name }) => name),
      texts: () =>
        received.messages.filter(({ type }) => type === "message").map(({ text }) => text),
    });
  }

  dispatch(type) {
    for (const call of [...(this.#listeners.get(type) ?? [])]) call({ type });
  }

  hasListener(type) {
    return !!this.#listeners.get(type)?.size;
  }

  /** Hides the page for this time, as a change to another tab does. */
  async hideFor(ms) {
    this.globals.document.hidden = true;
    this.dispatch("visibilitychange");
    await this.simulation.clock.advance(ms);
    this.globals.document.hidden = false;
    this.dispatch("visibilitychange");
  }

  /** Loads the page again in the same tab. Returns the new page. */
  reload() {
    this.close();
    return this.simulation.openPage({ ...this.options, storage: this.storage });
  }

  /** Opens the page in a new tab that has a copy of this tab's storage. */
  duplicate() {
    const storage = newStorage(this.storage);
    return this.simulation.openPage({ ...this.options, storage });
  }

  /** Does what a browser does when the user closes the tab. */
  close() {
    this.dispatch("pagehide");
    this.crash();
  }

  /** Ends the page without an event. */
  crash() {
    this.#isGone = true;
    for (const abort of this.#aborts) abort();
    for (const channel of this.#channels) channel.close();
    for (const request of this.#lockRequests) request.release();
    this.#lockRequests.clear();
  }

  #send(kind, url, query, onAnswer, onFailure) {
    if (this.#isGone) return () => {};
    const abort = this.simulation.send({ url, query, kind, page: this }, onAnswer, onFailure);
    this.#aborts.add(abort);
    return abort;
  }

  #fetch(url, { body, signal, keepalive }) {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason);
      const onAnswer = ({ [FIELDS]: fields = {}, ...answer }) =>
        resolve({ json: async () => answer, headers: new Headers(fields) });
      const onFailure = () => reject(new TypeError("Failed to fetch"));
      const abort = this.#send("fetch", url, new URLSearchParams(body), onAnswer, onFailure);
      if (keepalive) this.#aborts.delete(abort);
      signal.addEventListener("abort", () => {
        reject(signal.reason);
        abort();
      });
    });
  }

  #openStream(kind, url, callbacks) {
    if (this.forbidsStreams) throw new Error("SecurityError");
    const { close, send } = this.simulation.openStream(
      { url, kind, page: this },
      {
        ...callbacks,
        onEnd: () => {
          this.streams.delete(close);
          callbacks.onEnd();
        },
      },
    );
    this.streams.add(close);
    this.#aborts.add(close);
    const closeStream = () => {
      this.streams.delete(close);
      this.#aborts.delete(close);
      close();
    };
    return { close: closeStream, send };
  }

  #webSocketClass() {
    const page = this;
    return class extends EventTarget {
      #stream;
      constructor(url) {
        super();
        page.addresses.push(url);
        this.#stream = page.#openStream("websocket", url, {
          onOpen: () => {
            this.dispatchEvent(new Event("open"));
            this.onopen();
          },
          onAnswer: (answer) => this.onmessage({ data: JSON.stringify(answer) }),
          onEnd: () => {
            this.onerror();
            this.onclose();
          },
        });
      }
      send(text) {
        this.#stream.send(JSON.parse(text));
      }
      close() {
        this.#stream.close();
        page.simulation.clock.setTimeout(() => this.onclose(), LATENCY_MS);
      }
    };
  }

  #eventSourceClass() {
    const page = this;
    return class extends EventTarget {
      #stream;
      constructor(url) {
        super();
        this.#stream = page.#openStream("eventsource", url, {
          onOpen: () => this.onopen(),
          onAnswer: (answer, from) => {
            for (const [type, fields] of events(answer, from)) {
              page.simulation.clock.setTimeout(() => {
                if (this.isClosed) return;
                if (type === "message") this.onmessage(fields);
                else this.dispatchEvent(new Event(type));
              });
            }
          },
          onEnd: () => this.onerror(),
        });
      }
      close() {
        this.isClosed = true;
        this.#stream.close();
      }
    };
  }

  #load(element) {
    const { searchParams, href } = new URL(element.src);
    const onAnswer = (answer) => {
      const callback = this.globals[searchParams.get("callback")];
      if (!callback) this.errors.push("a script found no callback");
      callback?.(answer);
      element.onload({ type: "load" });
    };
    const onFailure = () => element.onerror({ type: "error" });
    this.#send("jsonp", href.split("?")[0], searchParams, onAnswer, onFailure);
  }
}
