import { render } from "preact";
import { App } from "./app";
import { loadConversations } from "./chat/conversations";
import { watchServer } from "./server_state";
import "./style/base.css";
import "./style/chat.css";
import "./style/tree.css";

watchServer();
loadConversations();
render(<App />, document.getElementById("app")!);
