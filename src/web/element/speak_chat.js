// The element: docs/element.md documents it.

import { listen } from "./input.js";
import { act, showNotice } from "./notice.js";
import { roomLabel } from "./room.js";
import { homeServer, loadSpeak } from "./script.js";
import { enter, leave, setName, storedName } from "./session.js";
import { createView } from "./view.js";

const RETRY_MS = 5000;
const ATTRIBUTES = ["room", "name", "src"];

export class SpeakChat extends HTMLElement {
  static observedAttributes = ATTRIBUTES;
  #view = createView(this);
  #owner;

  constructor() {
    super();
    listen(this.#view);
  }

  /** Secret name of the room, if its owner uses the page. It is no attribute of the document. */
  get owner() {
    return this.#owner;
  }

  set owner(owner) {
    this.#owner = owner;
    this.#update();
  }

  /** The chat of speak.js. */
  get chat() {
    return this.#view.chat;
  }

  /** Name of the room as people see it. */
  get label() {
    return roomLabel(this.#view);
  }

  /** Shows a text above the form, until the state of the connection changes. */
  show(text) {
    showNotice(this.#view, text);
  }

  focus(options) {
    const { $, name } = this.#view;
    $(name ? "text" : "name").focus(options);
  }

  connectedCallback() {
    // What the page has set before this script came hides the accessors.
    for (const name of [...ATTRIBUTES, "owner"]) {
      if (!Object.hasOwn(this, name)) continue;
      const value = this[name];
      delete this[name];
      this[name] = value;
    }
    this.#update();
  }

  disconnectedCallback() {
    this.#update();
  }

  attributeChangedCallback() {
    this.#update();
  }

  /** Does what the page wants. All that one task has set is done at once. */
  async #update() {
    const view = this.#view;
    view.room = this.room || "lobby";
    view.owner = this.#owner ?? (/^~o/.test(view.room) ? view.room : undefined);
    try {
      await loadSpeak();
    } catch {
      if (!this.isConnected) return;
      this.show("The server is out of reach.");
      setTimeout(() => this.#update(), RETRY_MS);
      return;
    }
    const { name } = this;
    const server = this.src ?? homeServer();
    const place = this.isConnected && JSON.stringify([view.room, view.owner, server]);
    if (place === view.place) {
      if (place && name) act(view, setName(view, name));
      return;
    }
    view.place = place;
    if (!place) return leave(view);
    view.name = name || storedName();
    enter(view, server);
  }
}

// Frameworks set properties.
for (const name of ATTRIBUTES) {
  Object.defineProperty(SpeakChat.prototype, name, {
    get() {
      return this.getAttribute(name);
    },
    set(value) {
      this.setAttribute(name, value);
    },
  });
}
