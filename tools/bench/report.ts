import { formatNumber, targetWords, verdict, type BenchResult, type Figure } from './figures.ts';
import { machineWords, type Machine } from './machine.ts';

/** What a whole run found; the content of `.weir/bench.json`. */
export interface BenchReport {
  /** ISO date and time of the start. */
  date: string;
  quick: boolean;
  machine: Machine;
  results: Record<string, BenchResult & { seconds: number }>;
  failures: Record<string, string>;
}

const heading = ['figure', 'unit', 'n', 'p50', 'p95', 'p99', 'target', 'verdict'];

function cells(figure: Figure): string[] {
  const optional = (value: number | undefined) => (value === undefined ? '' : formatNumber(value));
  const middle =
    figure.p95 === undefined && figure.count > 1
      ? `${formatNumber(figure.p50)} (${formatNumber(figure.min)}-${formatNumber(figure.max)})`
      : formatNumber(figure.p50);
  return [
    figure.name,
    figure.unit,
    String(figure.count),
    middle,
    optional(figure.p95),
    optional(figure.p99),
    targetWords(figure),
    verdict(figure),
  ];
}

function rows(report: BenchReport): string[][] {
  const found = Object.values(report.results).flatMap(({ figures }) => figures.map(cells));
  const failed = Object.keys(report.failures).map((name) => [name, '', '', '', '', '', '', 'failed to run']);
  return [...found, ...failed];
}

/** One table for the terminal. */
export function tableOf(report: BenchReport): string {
  const all = [heading, ...rows(report)];
  const widths = heading.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  const line = (row: string[]) =>
    row
      .map((cell, column) =>
        column >= 2 && column <= 5 ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0),
      )
      .join('  ')
      .trimEnd();
  const rule = widths.map((width) => '-'.repeat(width)).join('  ');
  return [line(heading), rule, ...all.slice(1).map(line)].join('\n');
}

/** What of one benchmark stands in the docs: its table as Markdown, with the machine and the notes. */
export function markdownOf(name: string, report: BenchReport): string {
  const line = (row: string[]) => `| ${row.join(' | ')} |`;
  const { figures = [], notes = [] } = report.results[name] ?? {};
  const { commit, loadAtStart } = report.machine;
  return [
    `Measured ${report.date.slice(0, 10)} at commit ${commit} on ${machineWords(report.machine)}.`,
    `Load average at the start: ${formatNumber(loadAtStart)}.`,
    '',
    line(heading),
    line(['---', '---', '--:', '--:', '--:', '--:', '---', '---']),
    ...figures.map((figure) => line(cells(figure))),
    ...(notes.length > 0 ? ['', ...notes.map((note) => `- ${note}`)] : []),
  ].join('\n');
}

/**
 * A document with the figures of one benchmark replaced by those of the report.
 *
 * @throws Error when the document has no place marked for them.
 */
export function withFigures(document: string, name: string, report: BenchReport): string {
  const [begin, end] = [`<!-- figures: ${name} -->`, `<!-- end of figures: ${name} -->`];
  const [from, to] = [document.indexOf(begin), document.indexOf(end)];
  if (from < 0 || to < from) throw new Error(`the document needs a line "${begin}" and below it a line "${end}"`);
  return `${document.slice(0, from + begin.length)}\n\n${markdownOf(name, report)}\n\n${document.slice(to)}`;
}
