// Elements of the page.

const timeFormat = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });

export const $ = (id) => document.getElementById(id);

export function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Makes a button of the room's owner. The first click asks, and the second one acts. Escape, or
// leaving the button, takes the question back.
export function ownerButton(label, question, act) {
  const button = make("button", { className: "owner-action link", type: "button" });
  let asks;
  let isBusy = false;
  const ask = (value) => {
    asks = value;
    button.textContent = asks ? question : label;
    button.classList.toggle("asks", asks);
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

// Another client may introduce a member without a name, or with a blank one.
export function displayName(name) {
  return name?.trim() || "Guest";
}

export function nameLabel({ name }) {
  return make("bdi", {}, displayName(name));
}

// The first letter of a name, in a colour that depends on the name.
export function avatar(name) {
  const letters = name?.trim() ? [...name.trim()] : ["?"];
  const letter = letters[0].toUpperCase();
  const element = make("span", { className: "avatar", ariaHidden: "true" }, letter);
  const hash = letters.reduce((sum, next) => (sum * 67 + next.codePointAt(0)) % 3607, 0);
  element.style.setProperty("--hue", hash % 360);
  return element;
}

export function timeLabel(time) {
  const date = new Date(time);
  const properties = { dateTime: date.toISOString(), title: date.toLocaleString() };
  return make("time", properties, timeFormat.format(date));
}

// Makes links of addresses that begin with http: or https:. Everything else remains text.
export function linkify(text) {
  const attributes = { target: "_blank", rel: "noopener noreferrer" };
  return text.split(/(https?:\/\/[^\s<>"]*[^\s<>"'.,;:!?)\]])/i).map((part, i) =>
    i % 2 && URL.canParse(part) ? make("a", { href: part, ...attributes }, part) : part);
}
