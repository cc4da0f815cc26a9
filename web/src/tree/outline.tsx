// The tree as text: the WAI-ARIA pattern of a tree, with its keys.
import { useEffect, useRef, useState } from "preact/hooks";
import type { Tree, TreeNode } from "../api";
import { gist, plural } from "../format";
import { heatOf, heats } from "./layout";

interface Item {
  node: TreeNode;
  level: number;
  position: number; // among its siblings, from 1
  size: number; // how many these are
  hasChildren: boolean;
}

// Those whose parents are all open, in order.
function visibleItems(nodes: TreeNode[], closed: ReadonlySet<number>): Item[] {
  const children = new Map<number | null, TreeNode[]>();
  for (const node of nodes) {
    children.set(node.parent, [...(children.get(node.parent) ?? []), node]);
  }
  const items: Item[] = [];
  const visit = (parent: number | null, level: number) => {
    const siblings = children.get(parent) ?? [];
    siblings.forEach((node, index) => {
      const hasChildren = children.has(node.id);
      items.push({ node, level, position: index + 1, size: siblings.length, hasChildren });
      if (hasChildren && !closed.has(node.id)) visit(node.id, level + 1);
    });
  };
  visit(null, 1);
  return items;
}

function describe(node: TreeNode): string {
  if (node.parent === null) return `scope ${node.id}`;
  return gist(node.text ?? "") || `node ${node.id}`;
}

function figuresOf(node: TreeNode): string {
  const { leases, hidden_children: hidden } = node;
  const figures = [leases > 0 ? `in use by ${plural(leases, "request")}` : heats[heatOf(node)]];
  if (node.parent !== null) figures.unshift(plural(node.tokens, "token"));
  if (hidden > 0) figures.push(`${plural(hidden, "child", "children")} not shown`);
  return figures.join(", ");
}

interface Props {
  tree: Tree;
  selected: number | null;
  onSelect: (id: number) => void;
}

// Which items are open, and where the keys of a tree lead.
function useFolding({ tree, selected, onSelect }: Props) {
  const [closed, setClosed] = useState<ReadonlySet<number>>(new Set());
  const items = visibleItems(tree.nodes, closed);
  const found = items.findIndex(({ node }) => node.id === selected);
  const index = Math.max(found, 0); // where none is selected the first one has the focus

  const toggle = (id: number) => {
    const next = new Set(closed);
    if (!next.delete(id)) next.add(id);
    setClosed(next);
  };
  const go = (to: number) => {
    const item = items[Math.min(Math.max(to, 0), items.length - 1)];
    if (item) onSelect(item.node.id);
  };
  const goRight = ({ node, hasChildren }: Item) => {
    if (!hasChildren) return;
    if (closed.has(node.id)) toggle(node.id);
    else go(index + 1);
  };
  const goLeft = ({ node, hasChildren }: Item) => {
    if (hasChildren && !closed.has(node.id)) toggle(node.id);
    else if (node.parent !== null) onSelect(node.parent);
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const item = items[index];
    if (!item) return;
    const actions: Record<string, () => void> = {
      ArrowDown: () => go(index + 1),
      ArrowUp: () => go(index - 1),
      ArrowRight: () => goRight(item),
      ArrowLeft: () => goLeft(item),
      Home: () => go(0),
      End: () => go(items.length - 1),
      Enter: () => onSelect(item.node.id),
      " ": () => onSelect(item.node.id),
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  };
  return { items, index, closed, toggle, onKeyDown };
}

export function Outline(props: Props) {
  const { selected, onSelect } = props;
  const { items, index, closed, toggle, onKeyDown } = useFolding(props);
  const list = useRef<HTMLUListElement>(null);
  const hasFocus = useRef(false);
  useEffect(() => {
    if (hasFocus.current) list.current?.querySelector<HTMLElement>("[tabindex='0']")?.focus();
  }, [selected]);
  return (
    <ul
      class="outline"
      role="tree"
      aria-label="Nodes of the tree"
      ref={list}
      onKeyDown={onKeyDown}
      onFocusCapture={() => (hasFocus.current = true)}
      onBlurCapture={() => (hasFocus.current = false)}
    >
      {items.map(({ node, level, position, size, hasChildren }, at) => (
        <li
          key={node.id}
          role="treeitem"
          aria-level={level}
          aria-posinset={position}
          aria-setsize={size}
          aria-expanded={hasChildren ? !closed.has(node.id) : undefined}
          aria-selected={node.id === selected}
          tabIndex={at === index ? 0 : -1}
          style={{ paddingInlineStart: `${Math.min(level, 12) * 0.9}rem` }}
          onClick={() => onSelect(node.id)}
        >
          <span class="fold" aria-hidden="true" onClick={() => hasChildren && toggle(node.id)} />
          <span class={`swatch heat${heatOf(node)}`} aria-hidden="true" />
          <span class="what">{describe(node)}</span>
          <span class="how-much">{figuresOf(node)}</span>
        </li>
      ))}
    </ul>
  );
}
