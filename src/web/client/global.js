// The client as a script: speak.js, which defines the global Speak.

import { Speak } from "./chat.js";

const script = /** @type {HTMLScriptElement | null} */ (document.currentScript);
Speak.server = new URL(".", script?.src || Speak.server).href;
globalThis.Speak = Speak;
