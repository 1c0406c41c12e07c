// What the visitor does.

import { isAtEnd } from "./log.js";
import { act } from "./notice.js";
import { send } from "./outbox.js";
import { autoGrow, selectMember, writeToEveryone } from "./recipient.js";
import { focusInput, setName, storedName, storeName } from "./session.js";

/** @param {import("./view.js").View} view */
export function listen(view) {
  const { $ } = view;
  const text = $("text");

  $("join").onsubmit = (event) => {
    event.preventDefault();
    const name = $("name").value.trim();
    if (!name) return;
    setVisitor(name);
    text.focus();
  };
  $("compose").onsubmit = (event) => {
    event.preventDefault();
    const message = text.value.trim();
    if (!message || view.recipient?.isGone) return;
    text.value = "";
    autoGrow(view);
    send(view, message, view.recipient);
  };
  text.oninput = () => autoGrow(view);
  text.onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("compose").requestSubmit();
  };

  $("members").onclick = ({ target }) => {
    if (target.closest(".owner-action")) return;
    selectMember(view, target.closest("li")?.dataset.connection);
  };
  $("messages").onclick = ({ target }) => {
    if (!target.closest(".name, .avatar")) return;
    selectMember(view, target.closest(".byline").dataset.from);
  };
  $("retry").onclick = () => dispatchEvent(new Event("online")); // ends the pause of speak.js
  $("new-messages").onclick = () => ($("scroller").scrollTop = 0);
  $("scroller").onscroll = () => {
    if (isAtEnd(view)) view.unseen = 0;
    $("new-messages").hidden = !view.unseen;
  };
  $("to-everyone").onclick = () => writeToEveryone(view);
  $("chat").onkeydown = ({ key }) => {
    if (key === "Escape" && view.recipient && !$("self-dialog").open) writeToEveryone(view);
  };

  $("self-dialog").firstElementChild.onsubmit = ({ submitter }) => {
    const name = $("rename").value.trim();
    if (submitter.value === "leave") {
      $("name").value = storedName();
      setVisitor("");
      focusInput(view);
    } else if (!submitter.value && name) {
      setVisitor(name);
    }
  };

  /** Gives the visitor a name, and keeps it if the server takes it. */
  const setVisitor = (name) => act(view, setName(view, name).then(() => storeName(view, name)));
}
