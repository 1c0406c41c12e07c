// The element <speak-chat> as a script: speak-chat.js.

import { SpeakChat } from "./speak_chat.js";

// Two copies of the script may be in one page.
if (!customElements.get("speak-chat")) customElements.define("speak-chat", SpeakChat);
