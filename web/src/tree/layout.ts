// Where each node of the tree is drawn. From left to right a path goes on: a node is a bar, longer
// the more tokens it has; leaves have a row each, and what branches is in the middle of its
// branches and thicker.
//
//   scope o--[ system prompt ]--+--[ user A ]
//                               +--[ user B ]--+--[ ... ]
import { cluster, type HierarchyPointNode, stratify } from "d3-hierarchy";
import type { TreeNode } from "../api";

export interface Placed {
  node: TreeNode;
  parent: Placed | null;
  x: number; // of its left end
  y: number; // of its middle
  width: number;
  height: number;
  isLeaf: boolean;
}

export interface Drawing {
  placed: Placed[]; // parents before their children
  byId: Map<number, Placed>;
  width: number;
  height: number;
}

const gap = 22; // between a node and its children
const leastBar = 8;
const margin = 14;
const scopeWidth = 10;

type Point = HierarchyPointNode<TreeNode | null>;

const depthOf = (point: Point) => point.ancestors().length;

// How many pixels a bar gets for the square root of its tokens, so that the longest path fits.
// Roots, as a trunk may have ten thousand tokens and its branches ten.
function scaleFor(leaves: Point[], room: number): number {
  const scales = leaves.map((leaf) => {
    const path = leaf.ancestors().flatMap(({ data }) => (data ? [data] : []));
    const fixed = path.length * (gap + leastBar);
    const roots = path.reduce((sum, { tokens }) => sum + Math.sqrt(tokens), 0);
    return roots > 0 ? (room - fixed) / roots : Infinity;
  });
  return Math.min(Math.max(Math.min(...scales), 0.5), 16);
}

function place(
  point: Point,
  parent: Placed | null,
  scale: number,
  row: number,
  top: number,
): Placed {
  const node = point.data!;
  const isScope = node.parent === null;
  const numLeaves = point.leaves().length;
  return {
    node,
    parent,
    x: parent ? parent.x + parent.width + gap : margin,
    y: (point.x - top) * row + row / 2 + margin,
    width: isScope ? scopeWidth : leastBar + scale * Math.sqrt(node.tokens),
    height: Math.min(row - 4, (point.children ? 14 : 10) + 3 * Math.log2(numLeaves)),
    isLeaf: !point.children,
  };
}

// `labelWidth`: what a leaf's label needs behind it.
export function layOut(nodes: TreeNode[], width: number, labelWidth: number): Drawing {
  const byId = new Map<number, Placed>();
  if (nodes.length === 0) return { placed: [], byId, width, height: 0 };
  // All scopes hang on a root that is not drawn.
  const root = stratify<TreeNode | null>()
    .id((node) => (node ? String(node.id) : "root"))
    .parentId((node) => (node ? String(node.parent ?? "root") : undefined))([null, ...nodes]);
  const arranged = cluster<TreeNode | null>()
    .nodeSize([1, 1])
    .separation((a, b) => (a.parent === b.parent ? 1 : 1.2))(root);
  const leaves = arranged.leaves();
  const top = Math.min(...leaves.map(({ x }) => x));
  const numRows = Math.max(...leaves.map(({ x }) => x)) - top + 1;
  const row = Math.min(Math.max(520 / numRows, 16), 30);
  const scale = scaleFor(leaves, width - 2 * margin - labelWidth);
  for (const point of arranged.descendants().sort((a, b) => depthOf(a) - depthOf(b))) {
    if (!point.data) continue;
    const parent = byId.get(point.data.parent ?? 0) ?? null;
    byId.set(point.data.id, place(point, parent, scale, row, top));
  }
  const placed = [...byId.values()];
  const right = Math.max(...placed.map((one) => one.x + one.width + (one.isLeaf ? labelWidth : 0)));
  return {
    placed,
    byId,
    width: Math.max(width, Math.ceil(right + margin)),
    height: numRows * row + 2 * margin,
  };
}

// From the scope down to the node.
export function pathTo(placed: Placed | null | undefined): Placed[] {
  const path: Placed[] = [];
  for (let at = placed; at; at = at.parent) path.unshift(at);
  return path;
}

// How warm: 0 is in use, then by how many releases of other paths ago it was used last.
export const heats = ["in use", "used last", "warm", "cooling", "cool", "cold"];
export function heatOf({ leases, age }: TreeNode): number {
  if (leases > 0) return 0;
  return Math.min(1 + Math.floor(Math.log2(1 + age) / 2), heats.length - 1);
}
