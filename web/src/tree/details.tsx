// The node that was picked: how it begins, and its figures.
import type { Tree, TreeNode } from "../api";
import { bytes, count, plural } from "../format";
import { heatOf, heats } from "./layout";

function pathTo(nodes: TreeNode[], id: number): TreeNode[] {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const path: TreeNode[] = [];
  for (let at = byId.get(id); at; at = at.parent === null ? undefined : byId.get(at.parent)) {
    path.unshift(at);
  }
  return path;
}

function Snippet({ node, isOwn }: { node: TreeNode; isOwn: boolean }) {
  if (node.text !== undefined)
    return (
      <pre class="snippet">
        {node.text}
        {node.tokens > 32 && "…"}
      </pre>
    );
  return (
    <p class="note">
      {isOwn
        ? "It holds no text."
        : "Its text is shown to its owner only: to the key that it is of, or to those who know its cache salt (in the settings)."}
    </p>
  );
}

function figuresOf(node: TreeNode, path: TreeNode[]): [string, string][] {
  const heat = heats[heatOf(node)]!;
  const hidden = node.hidden_children > 0 ? `, ${count(node.hidden_children)} not shown` : "";
  const figures: [string, string][] = [
    ["in use by", plural(node.leases, "request")],
    ["warmth", node.leases > 0 ? heat : `${heat}: ${plural(node.age, "other release")} since`],
    ["branches", count(node.children) + hidden],
  ];
  if (node.parent === null) return figures;
  const end = node.begin + node.tokens;
  return [
    ["tokens", `${count(node.tokens)}, from ${count(node.begin)} to ${count(end)}`],
    ["pages of its own", `${count(node.pages)} (${bytes(node.bytes)})`],
    ...figures,
    ["nodes above it", count(path.length - 1)],
    ["scope", String(node.scope)],
  ];
}

interface Props {
  tree: Tree;
  selected: number | null;
}

export function Details({ tree, selected }: Props) {
  const path = selected === null ? [] : pathTo(tree.nodes, selected);
  const node = path.at(-1);
  return (
    <section class="details" aria-labelledby="details-title">
      <h2 id="details-title">
        {node ? (node.parent === null ? `Scope ${node.id}` : `Node ${node.id}`) : "Node"}
      </h2>
      {!node && (
        <p class="note">
          {selected === null
            ? "Pick a node to see how it begins."
            : "It is no longer there, or not shown."}
        </p>
      )}
      {node && (
        <>
          {node.parent !== null && <Snippet node={node} isOwn={node.scope === tree.own_scope} />}
          <dl class="figures list">
            {figuresOf(node, path).map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd>{value}</dd>
              </div>
            ))}
          </dl>
        </>
      )}
    </section>
  );
}
