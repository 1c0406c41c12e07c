// The state of the connection.

import { showNotice } from "./notice.js";

/** @typedef {import("./view.js").View} View */

const STATUS = {
  connecting: "Connecting",
  connected: "Connected",
  waiting: "Away",
  left: "Not connected",
};

/** @param {View} view @param {any} state of speak.js */
export function showState(view, { state, retryIn = 0 }) {
  const { $ } = view;
  const { dataset } = $("chat");
  if (state === "connecting" && dataset.state === "waiting") return; // until the attempt succeeds
  const status = STATUS[state];
  // Screen readers read every change of this text aloud.
  if ($("status").textContent !== status) $("status").textContent = status;
  dataset.state = state;
  clearInterval(view.countdown);
  if (state === "waiting") {
    const at = Date.now() + retryIn;
    const tick = () => {
      const seconds = Math.ceil((at - Date.now()) / 1000);
      const next = seconds > 0 ? `Next attempt in ${seconds} s.` : "Trying again.";
      showNotice(view, `The server is out of reach. ${next}`, true);
    };
    tick();
    view.countdown = setInterval(tick, 500);
  } else if (state === "connected") {
    showNotice(view, "");
    setTimeout(() => ($("log").ariaLive = "polite"));
  }
}
