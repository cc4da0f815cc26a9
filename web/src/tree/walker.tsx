// A request on its way down the tree, from its scope to the node where it is now.
import { useLayoutEffect, useRef } from "preact/hooks";
import { count } from "../format";
import { type Drawing, pathTo, type Placed } from "./layout";
import type { SeenRequest } from "./live";

const perNode = 350; // ms
const longest = 1800;

interface Point {
  x: number;
  y: number;
}

const endOf = (placed: Placed): Point => ({ x: placed.x + placed.width, y: placed.y });
const transformTo = ({ x, y }: Point) => `translate(${x}px, ${y}px)`;

function pointsOn(path: Placed[]): Point[] {
  return path.flatMap((placed) => [{ x: placed.x, y: placed.y }, endOf(placed)]);
}

const isCalm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

function labelOf({ state, cached_tokens, missed }: SeenRequest): string {
  if (state === "prompt") return `${count(cached_tokens)} cached`;
  const worst = Object.entries(missed).sort(([, a], [, b]) => b - a)[0];
  return worst ? `${count(worst[1])} ${worst[0].replace("_", " ")}` : "";
}

export function Walker({ request, drawing }: { request: SeenRequest; drawing: Drawing }) {
  const group = useRef<SVGGElement>(null);
  const walked = useRef<number | null>(null); // the node that it has reached
  const placed = request.node === null ? undefined : drawing.byId.get(request.node);

  useLayoutEffect(() => {
    const element = group.current;
    if (!element || !placed || walked.current === placed.node.id) return;
    const path = pathTo(placed);
    const before = path.findIndex(({ node }) => node.id === walked.current);
    const from = path[before];
    const points = [...(from ? [endOf(from)] : []), ...pointsOn(path.slice(before + 1))];
    walked.current = placed.node.id;
    if (isCalm() || points.length < 2) return;
    element.animate(
      points.map((point) => ({ transform: transformTo(point) })),
      { duration: Math.min((perNode * points.length) / 2, longest), easing: "ease-in-out" },
    );
  });

  if (!placed) return null;
  return (
    <g
      ref={group}
      class={`walker ${request.state}`}
      style={{ transform: transformTo(endOf(placed)) }}
    >
      <circle r="6" />
      <text x="10" y="-10">
        {labelOf(request)}
      </text>
    </g>
  );
}
