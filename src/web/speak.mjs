import "./speak.js";

const { Speak } = globalThis;
Speak.server = new URL(".", import.meta.url).href;
export default Speak;
export const { create, join, SpeakError } = Speak;
