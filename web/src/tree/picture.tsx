// The tree as a drawing. What it shows is in the outline too, for the keyboard and screen readers.
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Tree } from "../api";
import { count, gist, plural } from "../format";
import { type Drawing, heatOf, layOut, pathTo, type Placed } from "./layout";
import type { SeenRequest } from "./live";
import { Walker } from "./walker";

function useWidth() {
  const box = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const observer = new ResizeObserver(([entry]) => entry && setWidth(entry.contentRect.width));
    if (box.current) observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  return { box, width };
}

// From the end of its parent to its beginning.
function linkOf({ parent, x, y }: Placed): string {
  if (!parent) return "";
  const from = parent.x + parent.width;
  const middle = (from + x) / 2;
  return `M${from} ${parent.y}C${middle} ${parent.y} ${middle} ${y} ${x} ${y}`;
}

const perLetter = 6.9; // px, of the labels' font

function shortened(text: string, width: number): string {
  const letters = Math.floor(width / perLetter);
  const line = gist(text);
  return line.length <= letters ? line : `${line.slice(0, Math.max(letters - 1, 0))}…`;
}

function Label({ placed, labelWidth }: { placed: Placed; labelWidth: number }) {
  const { node, x, y, width, isLeaf } = placed;
  if (node.parent === null) return null;
  const tokens = count(node.tokens);
  if (isLeaf) {
    const hidden = node.hidden_children > 0 ? ` +${node.hidden_children} more` : "";
    const text = shortened(`${tokens}${hidden} ${node.text ?? ""}`, labelWidth - 10);
    return (
      <text class="label" x={x + width + 7} y={y + 4}>
        {text}
      </text>
    );
  }
  if (placed.height < 13 || width < tokens.length * perLetter + 8) return null;
  return (
    <text class="label inside" x={x + 6} y={y + 4}>
      {shortened(`${tokens} ${node.text ?? ""}`, width - 16)}
    </text>
  );
}

interface NodeProps {
  placed: Placed;
  isWalked: boolean;
  isSelected: boolean;
  labelWidth: number;
  onSelect: (id: number) => void;
}

function Node({ placed, isWalked, isSelected, labelWidth, onSelect }: NodeProps) {
  const { node, x, y, width, height } = placed;
  const classes = `node heat${heatOf(node)}${isWalked ? " walked" : ""}${isSelected ? " selected" : ""}`;
  return (
    <g class={classes} onClick={() => onSelect(node.id)}>
      {/* Thin bars are hard to hit. */}
      <rect class="target" x={x - 4} y={y - 8} width={width + 8} height={16} />
      <rect
        class="bar"
        x={x}
        y={y - height / 2}
        width={width}
        height={height}
        rx={Math.min(5, height / 2)}
      />
      <Label placed={placed} labelWidth={labelWidth} />
    </g>
  );
}

function idsWalked(drawing: Drawing, requests: SeenRequest[]): Set<number> {
  const ids = requests.flatMap(({ node }) =>
    node === null ? [] : pathTo(drawing.byId.get(node)).map((placed) => placed.node.id),
  );
  return new Set(ids);
}

interface Props {
  tree: Tree;
  requests: SeenRequest[]; // those that are on their way
  selected: number | null;
  onSelect: (id: number) => void;
}

export function Picture({ tree, requests, selected, onSelect }: Props) {
  const { box, width } = useWidth();
  const labelWidth = width < 500 ? 70 : 190;
  const drawing = useMemo(() => layOut(tree.nodes, width, labelWidth), [tree, width, labelWidth]);
  const walked = idsWalked(drawing, requests);
  const name = `The tree: ${plural(tree.nodes.length, "node")}. The outline has them as text.`;
  return (
    <div class="picture" ref={box} tabIndex={0} role="region" aria-label="Drawing of the tree">
      {width > 0 && (
        <svg width={drawing.width} height={drawing.height} role="img" aria-label={name}>
          {drawing.placed.map((placed) => (
            <path
              key={placed.node.id}
              class={walked.has(placed.node.id) ? "link walked" : "link"}
              d={linkOf(placed)}
            />
          ))}
          {drawing.placed.map((placed) => (
            <Node
              key={placed.node.id}
              placed={placed}
              isWalked={walked.has(placed.node.id)}
              isSelected={placed.node.id === selected}
              labelWidth={labelWidth}
              onSelect={onSelect}
            />
          ))}
          {requests.map((request) => (
            <Walker key={`${request.id}/${request.choice}`} request={request} drawing={drawing} />
          ))}
        </svg>
      )}
    </div>
  );
}
