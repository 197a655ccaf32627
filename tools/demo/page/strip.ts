import { describeLink, type PlacedNode, type RoomLink, type RoomState } from './room-state.ts';

function element(tag: string, className: string, text = ''): HTMLElement {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function nodeChip({ node, region, role }: PlacedNode, hue: (region: string) => string): HTMLElement {
  const chip = element('li', 'placed');
  chip.dataset['node'] = node;
  chip.dataset['hue'] = hue(region);
  chip.append(element('b', '', node), element('span', '', role === 'Edge' ? region : `${region} · ${role}`));
  return chip;
}

/** @param named says which nodes it joins, for where it does not stand between them */
function wire(link: RoomLink, named: boolean): HTMLElement {
  const made = element('li', 'wire');
  made.dataset['link'] = `${link.from} ${link.to}`;
  made.dataset['state'] = link.state;
  made.title = `cascade link ${link.from} to ${link.to}`;
  const ends = element('b', '', `${link.from} – ${link.to}`);
  ends.hidden = !named;
  made.append(ends, element('span', '', describeLink(link)));
  return made;
}

/**
 * Draws where a room is served: its nodes and the links between them, as the operator's status has it.
 *
 * @param hue names the colour of a region
 */
export function drawStrip(list: HTMLElement, state: RoomState | undefined, hue: (region: string) => string): void {
  const { nodes = [], links = [] } = state ?? {};
  const chips = nodes.map((node) => nodeChip(node, hue));
  const [first, second] = chips;
  const [only] = links;
  // Two nodes and their link are drawn as such; more nodes first, then the links.
  if (first && second && only && nodes.length === 2) list.replaceChildren(first, wire(only, false), second);
  else list.replaceChildren(...chips, ...links.map((link) => wire(link, true)));
}

/** The room in a line: `Mesh · epoch 3`, or why nobody can join. */
export function describeRoom(state: RoomState | undefined): string {
  if (!state) return '';
  if (!state.ready) return state.message;
  return [state.topology, `epoch ${state.epoch}`].filter((part) => part !== '').join(' · ');
}
