// This script, and speak.js from where it came from.

/** @type {any} */
const script = document.currentScript ?? document.querySelector('script[src*="speak-chat.js"]');
const home = script?.src && new URL(".", script.src).href;

/** The address of the server that the page has the element from. */
export const homeServer = () => home || globalThis.Speak.server;

let loading;

/** Loads speak.js, unless the page has it. Rejects if it cannot be loaded. */
export async function loadSpeak() {
  if (globalThis.Speak) return;
  loading ??= new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.nonce = script?.nonce; // for a policy that lists no addresses
    element.onload = resolve;
    element.onerror = (event) => {
      loading = undefined;
      element.remove();
      reject(event);
    };
    element.src = `${home}speak.js`;
    document.head.append(element);
  });
  await loading;
}
