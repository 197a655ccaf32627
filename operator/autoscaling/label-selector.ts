import { ApiRefusal } from './refusal.ts';

/** One condition of a label selector, in the words of a LabelSelector's matchExpressions. */
export interface Requirement {
  readonly key: string;
  readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist';
  readonly values?: readonly string[];
}

const key = '[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?';
const value = '(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?';
const existence = new RegExp(`^(!?)\\s*(${key})$`);
const equality = new RegExp(`^(${key})\\s*(==|=|!=)\\s*(${value})$`);
const membership = new RegExp(`^(${key})\\s+(in|notin)\\s*\\((.*)\\)$`);
const oneValue = new RegExp(`^${value}$`);

/**
 * Reads a label selector such as `app=sfu-node,zone in (a, b),!spot`. Nothing selects everything.
 * @throws ApiRefusal BadRequest naming the part that is wrong
 */
export function parseSelector(text: string): Requirement[] {
  if (text.trim() === '') return [];
  // Commas between parentheses part values, not conditions.
  return text.split(/,(?![^()]*\))/).map((part) => requirementOf(part.trim()));
}

function requirementOf(part: string): Requirement {
  const [, not, name] = existence.exec(part) ?? [];
  if (name) return { key: name, operator: not ? 'DoesNotExist' : 'Exists' };
  const [, equalKey, sign, only = ''] = equality.exec(part) ?? [];
  if (equalKey) return { key: equalKey, operator: sign === '!=' ? 'NotIn' : 'In', values: [only] };
  const [, memberKey, word, list = ''] = membership.exec(part) ?? [];
  const values = list.split(',').map((each) => each.trim());
  if (memberKey && values.every((each) => oneValue.test(each))) {
    return { key: memberKey, operator: word === 'in' ? 'In' : 'NotIn', values };
  }
  const words = `"${part}" is no condition of a label selector; write key=value, key!=value, key in (a,b), key notin (a,b), key or !key`;
  throw new ApiRefusal(400, 'BadRequest', words);
}

/** Whether labels meet all conditions. As in Kubernetes, what lacks the key meets != and notin. */
export function matches(selector: readonly Requirement[], labels: Readonly<Record<string, string>>): boolean {
  return selector.every(({ key, operator, values = [] }) => {
    const label = Object.hasOwn(labels, key) ? labels[key] : undefined;
    if (operator === 'Exists') return label !== undefined;
    if (operator === 'DoesNotExist') return label === undefined;
    const isOneOf = label !== undefined && values.includes(label);
    return operator === 'In' ? isOneOf : !isOneOf;
  });
}
