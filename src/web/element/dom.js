// Elements of the chat. What people write becomes text nodes only, never markup.

const timeFormat = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });

/**
 * Makes an element. `part` has the names under which both its own style and the page find it.
 */
export function make(tag, { part, ...properties }, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  if (part) element.part = element.className = part;
  element.append(...children);
  return element;
}

/** Adds a name to an element, or takes it away. */
export function mark(element, name, isSet) {
  element.classList.toggle(name, isSet);
  element.part.toggle(name, isSet);
}

/**
 * Makes a button of the room's owner. The first click asks, and the second one acts. Escape, or
 * leaving the button, takes the question back.
 */
export function ownerButton(label, question, act) {
  const button = make("button", { part: "link owner-action", type: "button" });
  let asks;
  let isBusy = false;
  const ask = (value) => {
    asks = value;
    button.textContent = asks ? question : label;
    mark(button, "asks", asks);
    if (asks) button.scrollIntoView({ block: "nearest", inline: "nearest" });
  };
  button.onclick = async () => {
    if (isBusy) return;
    if (!asks) return ask(true);
    isBusy = true;
    await act();
    isBusy = false;
    ask(false);
  };
  button.onblur = () => ask(false);
  button.onkeydown = (event) => {
    if (event.key !== "Escape" || !asks) return;
    event.stopPropagation();
    ask(false);
  };
  ask(false);
  return button;
}

/** Another client may introduce a member without a name, or with a blank one. */
export const displayName = (name) => name?.trim() || "Guest";

export const nameLabel = ({ name }) => make("bdi", {}, displayName(name));

/** The first letter of a name, in a colour that depends on the name. */
export function avatar(name) {
  const letters = name?.trim() ? [...name.trim()] : ["?"];
  const letter = letters[0].toUpperCase();
  const element = make("span", { part: "avatar", ariaHidden: "true" }, letter);
  const hash = letters.reduce((sum, next) => (sum * 67 + next.codePointAt(0)) % 3607, 0);
  element.style.setProperty("--hue", hash % 360);
  return element;
}

export function timeLabel(time) {
  const date = new Date(time);
  const properties = { dateTime: date.toISOString(), title: date.toLocaleString() };
  return make("time", { part: "time", ...properties }, timeFormat.format(date));
}

/** Makes links of addresses that begin with http: or https:. Everything else remains text. */
export function linkify(text) {
  const attributes = { target: "_blank", rel: "noopener noreferrer" };
  return text
    .split(/(https?:\/\/[^\s<>"]*[^\s<>"'.,;:!?)\]])/i)
    .map((part, i) =>
      i % 2 && URL.canParse(part) ? make("a", { href: part, ...attributes }, part) : part,
    );
}
