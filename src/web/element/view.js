// The view of a chat: what its modules share. Each acts on its part.

import { make } from "./dom.js";
import css from "./style.css";

/**
 * @typedef {object} View
 * @property {any} host the element in the page; its `name` is what the page calls the visitor
 * @property {(id: string) => any} $ finds an element of the chat
 * @property {any} chat of speak.js; without a name, it only reads the room
 * @property {string} place room, owner and server, as the page has set them
 * @property {string} room
 * @property {string} [owner] secret name of the room, if its owner uses the page
 * @property {string} server its address
 * @property {string} name of the visitor; empty until it is known
 * @property {any} recipient of private messages; nothing if messages are for the whole room
 * @property {Map<string | undefined, string>} drafts by the recipient's inbox, so that no private
 *   text reaches the room
 * @property {{ id: number, time: number }} newest message of the room in the log
 * @property {any} lastRow of the last row: its sender, the time of its heading, its day
 * @property {number} unseen messages that came below the visible part of the log
 * @property {Map<number, string>} names by connection, to tell a new name from a new member
 * @property {any} countdown to the next attempt to connect
 */

let sheet;

/**
 * Makes the elements of a chat in a shadow tree. A sheet that is made by a script needs no
 * permission of the page's policy.
 *
 * @param {HTMLElement} host
 * @returns {View}
 */
export function createView(host) {
  const root = host.attachShadow({ mode: "open" });
  if (!sheet) (sheet = new CSSStyleSheet()).replaceSync(css);
  root.adoptedStyleSheets = [sheet];
  root.append(createTree());
  const $ = (id) => root.getElementById(id);
  $("people").setAttribute("aria-labelledby", "member-count");
  return { host, $, room: "", name: "", drafts: new Map(), names: new Map() };
}

const slot = (name, ...children) => make("slot", { name }, ...children);

const field = (input, label) =>
  make("div", { part: "field" }, input, make("button", { part: "button" }, label));

const nameInput = (id) =>
  make("input", { id, part: "input", required: true, maxLength: 40, autocomplete: "nickname" });

const createTree = () =>
  make(
    "div",
    { id: "chat" },
    make(
      "header",
      { part: "header" },
      slot("header", make("h2", { part: "title" }, make("bdi", { id: "room-name" }))),
      make(
        "p",
        { id: "state", part: "status" },
        make("span", { id: "status", role: "status" }, "Connecting"),
        " ",
        slot("status"),
      ),
    ),
    make("section", { id: "main", part: "main" }, createScroller(), createFooter()),
    make(
      "section",
      { id: "people", part: "people" },
      make("h2", { id: "member-count", part: "count" }, "Here now"),
      make("ul", { id: "members", part: "members" }),
      slot("members"),
    ),
    createDialog(),
  );

const createScroller = () =>
  make(
    "div",
    { id: "scroller", part: "log", role: "region", ariaLabel: "Conversation", tabIndex: 0 },
    make(
      "div",
      {},
      make(
        "div",
        { id: "empty" },
        slot("empty", make("b", {}, "It is quiet in here."), make("br", {}), "Say hello."),
      ),
      make(
        "div",
        { id: "log", role: "log", ariaLabel: "Messages" },
        make("ol", { id: "messages" }),
      ),
      make("ol", { id: "outbox", ariaLabel: "Not sent yet" }),
    ),
  );

const createFooter = () =>
  make(
    "footer",
    { part: "footer" },
    make("button", { id: "new-messages", part: "button", hidden: true }),
    make(
      "p",
      { id: "notice", part: "notice", hidden: true },
      make("span", { id: "notice-text" }),
      " ",
      make("button", { id: "retry", part: "link" }, "Try now"),
    ),
    make(
      "form",
      { id: "join", hidden: true },
      make("label", { htmlFor: "name" }, "What shall we call you?"),
      field(Object.assign(nameInput("name"), { placeholder: "Your name" }), "Come in"),
    ),
    make(
      "form",
      { id: "compose", hidden: true },
      make(
        "p",
        { id: "private", hidden: true },
        make("span", { id: "private-note" }),
        " ",
        make(
          "button",
          { id: "to-everyone", part: "link", type: "button" },
          "Back to everybody (Esc)",
        ),
      ),
      field(createTextArea(), "Send"),
    ),
  );

const createTextArea = () =>
  make("textarea", { id: "text", part: "input", rows: 1, dir: "auto", enterKeyHint: "send" });

/** The dialog of the visitor's own name. */
const createDialog = () =>
  make(
    "dialog",
    { id: "self-dialog", part: "dialog", ariaLabel: "You", closedBy: "any" },
    make(
      "form",
      { method: "dialog" },
      make("h2", {}, "You"),
      make("label", { htmlFor: "rename" }, "Your name"),
      field(nameInput("rename"), "Change"),
      ...[
        ["leave", "Leave the room"],
        ["close", "Close"],
      ].map(([value, label]) =>
        make("button", { part: "secondary", value, formNoValidate: true }, label),
      ),
    ),
  );
