// The budget: how much of the KV cache is used, and what it has been worth.
import type { CacheStats } from "../api";
import { bytes, count, percent } from "../format";

const figuresOf = (cache: CacheStats): [string, string][] => [
  ["tokens found", percent(cache.tokens_matched, cache.tokens_looked_up)],
  ["nodes", count(cache.nodes)],
  ["scopes", count(cache.scopes)],
  ["requests in it", count(cache.leases)],
  ["pinned prompts", count(cache.pins.count)],
  ["pages evicted", count(cache.pages_evicted)],
];

export function Budget({ cache }: { cache: CacheStats }) {
  const { pages, page_bytes: pageBytes, page_tokens: pageTokens } = cache;
  const inUse = pages.pinned + pages.private;
  const parts = [
    { kind: "used", name: "in use", pages: inUse },
    { kind: "kept", name: "cached", pages: pages.committed - pages.pinned },
    { kind: "free", name: "free", pages: pages.free },
  ];
  const full = pages.capacity - pages.free;
  const text = `${bytes(full * pageBytes)} of ${bytes(pages.capacity * pageBytes)} used`;
  return (
    <section class="budget" aria-labelledby="budget-title">
      <h2 id="budget-title">KV cache</h2>
      <div
        class="budget-bar"
        role="meter"
        aria-label="KV cache"
        aria-valuemin={0}
        aria-valuemax={pages.capacity}
        aria-valuenow={full}
        aria-valuetext={text}
      >
        {parts.map(({ kind, pages }) => (
          <span key={kind} class={`part ${kind}`} style={{ flexGrow: pages }} />
        ))}
      </div>
      <p class="legend">
        <strong>{text}</strong>
        {parts.map(({ kind, name, pages }) => (
          <span key={kind} class="cause">
            <span class={`swatch ${kind}`} aria-hidden="true" />
            {name} {bytes(pages * pageBytes)} ({count(pages * pageTokens)} tokens)
          </span>
        ))}
      </p>
      <dl class="figures">
        {figuresOf(cache).map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
