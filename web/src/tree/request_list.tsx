// Requests as they come and go, and what of their prompts was not cached, with the reason.
import { allCauses, Causes, PromptBar } from "../causes";
import { count } from "../format";
import type { SeenRequest } from "./live";

const states: Record<SeenRequest["state"], string> = {
  waiting: "waiting",
  prompt: "reading the prompt",
  generating: "writing",
  finished: "done",
};

const ends: Record<string, string> = {
  length: "done, at its longest",
  abort: "stopped",
  error: "failed",
};

const timeOf = (seconds: number) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

interface EntryProps {
  request: SeenRequest;
  onSelect: (id: number) => void;
}

function Entry({ request, onSelect }: EntryProps) {
  const { node, diverged, missed, state } = request;
  const isOver = state === "finished";
  const end = ends[request.finish_reason ?? ""] ?? states[state];
  return (
    <li class={`request ${state}`}>
      <div class="row">
        <time>{timeOf(request.submitted_at)}</time>
        <span class="state">{isOver ? end : states[state]}</span>
        {node !== null && (
          <button type="button" class="link-button" onClick={() => onSelect(node)}>
            node {node}
          </button>
        )}
      </div>
      <PromptBar cached={request.cached_tokens} missed={missed} />
      <ul class="list">
        <li class="cause">
          <span class="swatch cached" aria-hidden="true" />
          {count(request.cached_tokens)} of {count(request.prompt_tokens)} cached
        </li>
        <Causes missed={missed} />
        <li>{count(request.generated_tokens)} written</li>
      </ul>
      {diverged && (
        <p class="small">
          Left what is cached at token {count(diverged.position)}
          {diverged.prompt !== undefined && (
            <>
              : <q>{diverged.prompt}</q> for <q>{diverged.cached}</q>
            </>
          )}
        </p>
      )}
    </li>
  );
}

interface Props {
  requests: SeenRequest[];
  onSelect: (id: number) => void;
}

export function RequestList({ requests, onSelect }: Props) {
  return (
    <section class="requests" aria-labelledby="requests-title">
      <h2 id="requests-title">Requests</h2>
      {requests.length === 0 ? (
        <p class="note">None yet.</p>
      ) : (
        <ol tabIndex={0} aria-label="Requests, the last one first">
          {requests.map((request) => (
            <Entry key={`${request.id}/${request.choice}`} request={request} onSelect={onSelect} />
          ))}
        </ol>
      )}
      <details class="small">
        <summary>Why tokens are computed</summary>
        <dl class="why">
          {allCauses.map(({ cause, name, why }) => (
            <div key={cause}>
              <dt>
                <span class={`swatch ${cause}`} aria-hidden="true" /> {name}
              </dt>
              <dd>{why}</dd>
            </div>
          ))}
        </dl>
      </details>
    </section>
  );
}
