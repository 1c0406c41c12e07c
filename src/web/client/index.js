// The client as a module, for bundlers and for programs without a page.

export { create, join, Speak as default } from "./chat.js";
export { SpeakError } from "./protocol.js";
