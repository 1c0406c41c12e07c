import { useState } from "react";
import { useChat } from "./useChat.js";

const server = import.meta.env.VITE_SPEAK_SERVER ?? "http://localhost:8080";

export function App() {
  const [name, setName] = useState("");
  return name ? <Chat name={name} /> : <Entry onEnter={setName} />;
}

function Entry({ onEnter }) {
  const enter = (data) => onEnter(data.get("name"));
  return (
    <form action={enter}>
      <label>
        Your name <input name="name" required maxLength={40} />
      </label>
      <button>Join</button>
    </form>
  );
}

function Chat({ name }) {
  const { messages, members, state, error, say } = useChat("examples", { server, name });
  const [text, setText] = useState("");
  const [failure, setFailure] = useState(null);

  async function send(event) {
    event.preventDefault();
    setText("");
    setFailure(null);
    try {
      await say(text);
    } catch (error) {
      setFailure(error);
      setText((newer) => newer || text); // the text is the user's
    }
  }

  return (
    <main>
      <p>
        <span role="status">{state}</span>: {members.map(({ name }) => name).join(", ")}
      </p>
      <ul role="log">
        {messages
          .filter(({ type }) => type === "message")
          .map(({ id, time, name = "guest", text }) => (
            <li key={`${time} ${id}`}>
              {name}: {text}
            </li>
          ))}
      </ul>
      <p role="alert">{(error ?? failure)?.message}</p>
      <form onSubmit={send}>
        <input
          aria-label="Message"
          value={text}
          onChange={(event) => setText(event.target.value)}
          required
          autoComplete="off"
        />
        <button>Send</button>
      </form>
    </main>
  );
}
