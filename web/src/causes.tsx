// Where the tokens of a prompt came from: the cache, or the model, for one of these reasons.
import { count } from "./format";

const causes: Record<string, { name: string; why: string }> = {
  new_tokens: { name: "new", why: "what is cached ends here" },
  diverged: { name: "diverged", why: "what is cached goes on with other tokens" },
  cold: { name: "cold", why: "nothing that is cached begins like this" },
  evicted: { name: "evicted", why: "they were cached, but there was no room" },
  scope: { name: "other scope", why: "cached, but without this cache salt" },
  disabled: { name: "disabled", why: "the cache was not to be used" },
};

const nameOf = (cause: string) => causes[cause]?.name ?? cause;

interface Props {
  cached: number;
  missed: Record<string, number>;
}

export function PromptBar({ cached, missed }: Props) {
  const parts = [{ kind: "cached", tokens: cached }];
  for (const [cause, tokens] of Object.entries(missed)) parts.push({ kind: cause, tokens });
  return (
    <span class="prompt-bar" aria-hidden="true">
      {parts.map(({ kind, tokens }) => (
        <span key={kind} class={`part ${kind}`} style={{ flexGrow: tokens }} />
      ))}
    </span>
  );
}

// Items of a list.
export function Causes({ missed }: { missed: Record<string, number> }) {
  return (
    <>
      {Object.entries(missed).map(([cause, tokens]) => (
        <li key={cause} class="cause" title={causes[cause]?.why}>
          <span class={`swatch ${cause}`} aria-hidden="true" />
          {count(tokens)} {nameOf(cause)}
        </li>
      ))}
    </>
  );
}

// For the legend.
export const allCauses = Object.entries(causes).map(([cause, { name, why }]) => ({
  cause,
  name,
  why,
}));
