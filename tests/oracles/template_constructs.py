"""Lines of the template language, one construct each, for templates.py."""

VARIABLES = {
    "s": "Hello, World", "e": "", "u": "Grüße, 世界 \U0001f600!", "sp": "  padded\t\n", "lines": "one\ntwo\r\n\nthree",
    "n": 7, "neg": -7, "f": 2.5, "big": 1e22, "small": 1.5e-7, "third": 0.1, "t": True, "fa": False, "no": None,
    "l": [3, 1, 2], "names": ["b", "A", "c", "a"], "nested": [[1, 2], [3, [4]]], "el": [],
    "d": {"b": 1, "a": 2, "items": "own", "C": None}, "ed": {},
    "people": [{"name": "Ann", "age": 31, "pet": {"kind": "cat"}}, {"name": "bob", "age": 25},
               {"name": "Cid", "age": 31, "pet": {"kind": "dog"}}],
    "tree": [{"n": "a", "kids": [{"n": "b", "kids": [{"n": "c", "kids": []}]}, {"n": "d", "kids": []}]},
             {"n": "e", "kids": []}],
    "q": "it's \"q\"", "json": {"k": [1, 2.0, None, True, "ü\n\"\\/<>&'"], "o": {}, "l": [], "z": {"y": {"x": 1}}},
}

CONSTRUCTS = [line for line in r'''
plain
{{ s }}
{{ n }} {{ f }} {{ big }} {{ small }} {{ third }} {{ t }} {{ no }} {{ l }} {{ d }} {{ nested }} {{ q }}
{{ undefined_name }}|{{ undefined_name is defined }}
{{ undefined_name.x }}
{{ undefined_name['x'] }}
{{ undefined_name() }}
{{ undefined_name + 1 }}
{{ s + undefined_name }}
{{ d.nope }}|{{ d['nope'] }}|{{ l[9] }}|{{ s[99] }}|{{ d.nope is defined }}
{{ d.nope.x }}
{{ no.x }}|{{ no['x'] }}
{{ no.x.y }}
{{ d['items'] }}|{{ d.get('items') }}|{{ d.get('z') }}|{{ d.get('z', 5) }}
{{ d.b }} {{ d['b'] }} {{ d["a"] }} {{ people[0].pet.kind }} {{ people[0]['pet']['kind'] }} {{ nested[1][1][0] }} {{ nested.1.0 }}
{{ s[0] }}{{ s[-1] }}{{ s[1:3] }}{{ s[:-3] }}{{ s[::2] }}{{ s[::-1] }}{{ s[-3:] }}{{ s[5:1] }}{{ s[100:] }}
{{ u[0] }}{{ u[2] }}{{ u[7:9] }}{{ u[::-1] }}{{ u[::3] }}{{ u[-2] }}{{ u|length }}{{ u[10:2:-2] }}
{{ l[0] }}{{ l[-1] }}{{ l[1:] }}{{ l[::-1] }}{{ l[:2] }}{{ l[5:] }}{{ l[-2:] }}{{ l[::2] }}{{ l[2::-1] }}{{ (1, 2, 3)[1:] }}
{{ no[1:] }}
{{ l[::0] }}
{{ l['x'] }}|{{ l[1.0] }}|{{ l[true] }}|{{ s['upper']() }}
{{ 1 + 2 * 3 - 4 }} {{ 7 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 3 ** 2 }}
{{ 7.5 // 2 }} {{ -7.5 // 2 }} {{ 7.5 % 2 }} {{ -7.5 % 2 }} {{ 1.0 * 3 }} {{ 10 / 5 }} {{ 1e3 }} {{ 1_000 }} {{ 0x1f }} {{ 0b11 }} {{ 0o17 }} {{ 1.5e-3 }}
{{ 1 / 0 }}
{{ 1 % 0 }}
{{ -n }} {{ +n }} {{ -f }} {{ - n + 1 }} {{ -n|abs }} {{ not n }} {{ not not n }} {{ true + true }} {{ -true }}
{{ 'a' + 'b' }} {{ 'a' * 3 }} {{ 3 * 'ab' }} {{ [1] + [2] }} {{ [0] * 3 }} {{ (1,) + (2,) }} {{ 'ab' * -1 }}|
{{ 'a' + 1 }}
{{ 'a' ~ 1 ~ none ~ true ~ 2.0 ~ undefined_name ~ [1] }}
{{ 1 < 2 }} {{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1.0 }} {{ 1 == true }} {{ 'a' < 'b' }} {{ [1,2] < [1,3] }} {{ 1 != 2 }} {{ 'é' > 'z' }}
{{ 'a' < 1 }}
{{ none < 1 }}
{{ 'ell' in s }} {{ 'x' not in s }} {{ 3 in l }} {{ 9 not in l }} {{ 'a' in d }} {{ 1 in {1: 2} }} {{ '' in s }} {{ 'x' in undefined_name }}
{{ 1 in s }}
{{ 1 in 5 }}
{{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or 'x' }} {{ '' or [] or 'z' }} {{ 1 or 2 and 0 }} {{ not 1 or 2 }}
{{ 'y' if t else 'n' }} {{ 'y' if fa else 'n' }} {{ 'y' if fa }}| {{ 1 if fa else 2 if fa else 3 }} {{ ('a' if t else 'b') ~ 'c' }}
{{ 'a' 'b' "c" }} {{ "it's" }} {{ 'a\nb\tc\\d\'e\x41\u00e9\U0001f600\q\101' }} {{ 'ü' }}
{{ [1, 'a', none, true, 1.0, 'it\'s', "q\"q", "both'\""] }} {{ (1,) }} {{ () }} {{ (1, 2) }} {{ {} }} {{ {'a': 1, 2: [3]} }} {{ 1, 2 }}
{{ ['a\n\t\r\\', 'é', '\x00\x1f\x7f', '\u200b\u00a0', '\U0001f600'] }}
{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 123456789012345.0 }} {{ 1e15 }} {{ 1e-4 }} {{ 1e-5 }} {{ 1.0 }} {{ 100.0 }} {{ -0.0 }} {{ 5e-324 }} {{ 1.7976931348623157e308 }} {{ 2.5e+20 }}
{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ 'hELLO wORLD'.capitalize() }} {{ "they're bill's".title() }} {{ 'aB'.swapcase() }}
{{ u.upper() }} {{ u.lower() }} {{ 'straße'.upper() }} {{ 'ΑΒΓ'.lower() }} {{ 'ÉCOLE'.capitalize() }} {{ 'ß'.title() }}
[{{ sp.strip() }}][{{ sp.lstrip() }}][{{ sp.rstrip() }}][{{ 'xxaxx'.strip('x') }}][{{ 'abcba'.strip('ab') }}][{{ '\u00a0\u2003x\u3000'.strip() }}][{{ 'xa'.lstrip('x') }}]
{{ 'a,b,,c'.split(',') }} {{ 'a,b,c'.split(',', 1) }} {{ ' a  b c '.split() }} {{ ' a  b c '.split(none, 1) }} {{ 'a--b--c'.split('--') }} {{ ''.split(',') }} {{ ''.split() }}
{{ 'a,b,c'.rsplit(',', 1) }} {{ ' a  b c '.rsplit(none, 1) }} {{ 'a b'.rsplit() }} {{ '  a b c'.rsplit(none, 2) }} {{ 'a'.rsplit(none, 0) }} {{ 'abc'.split('</think>')[-1].lstrip('\n') }}
{{ 'a'.split('') }}
{{ lines.splitlines() }} {{ lines.splitlines(true) }} {{ 'a\x0bb\x0cc\x1cd\x85e\u2028f'.splitlines() }} {{ ''.splitlines() }} {{ '\n'.splitlines() }}
{{ s.startswith('Hell') }} {{ s.startswith(('x', 'H')) }} {{ s.endswith('ld') }} {{ s.startswith('lo', 3) }} {{ s.endswith(('a',)) }} {{ s.startswith('') }}
{{ s.startswith(1) }}
{{ s.find('o') }} {{ s.find('zz') }} {{ s.rfind('o') }} {{ s.index('W') }} {{ u.find('界') }} {{ s.count('l') }} {{ s.count('') }} {{ s.find('o', 5) }} {{ s.find('o', -3) }}
{{ s.index('zz') }}
{{ s.replace('l', 'L') }} {{ s.replace('l', 'L', 1) }} {{ 'abc'.replace('', '-') }} {{ 'aaa'.replace('aa', 'b') }} {{ 'üü'.replace('', '.') }} {{ 'abc'.replace('', '-', 2) }}
{{ ', '.join(['a', 'b']) }} {{ ''.join([]) }} {{ '-'.join('abc') }} {{ ','.join(d) }}
{{ ', '.join([1, 2]) }}
{{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('x') }} {{ 'abc'.rpartition('x') }} {{ 'abcd'.removeprefix('ab') }} {{ 'abcd'.removesuffix('cd') }} {{ 'abcd'.removesuffix('x') }}
{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '.') }}|{{ 'a'.center(4, '*') }}|{{ 'ab'.center(5, '*') }}|{{ 'ü'.center(4) }}|{{ '7'.zfill(3) }} {{ '-7'.zfill(4) }}
{{ '12'.isdigit() }} {{ '1a'.isdigit() }} {{ ''.isdigit() }} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ '½'.isnumeric() }} {{ 'ab'.isalpha() }} {{ 'é1'.isalnum() }} {{ ' \n'.isspace() }} {{ 'A1'.isupper() }} {{ 'a1'.islower() }} {{ 'Ab Cd'.istitle() }} {{ 'aé'.isascii() }} {{ 'a_1'.isidentifier() }}
{{ '{} {}'.format(1, 'a') }} {{ '{0} {1} {0}'.format('a', 'b') }} {{ '{x}'.format(x=5) }} {{ '{:>5}|{:<5}|{:^5}|{:*^7}'.format('a', 'b', 'c', 'd') }} {{ '{:05d} {:+d} {:x} {:,}'.format(42, 42, 255, 1234567) }} {{ '{:.2f} {:8.3f} {:e} {:g} {:.1%}'.format(3.14159, 2.5, 12345.678, 0.0001, 0.256) }} {{ '{{}}'.format() }} {{ '{0.x} {0[y]}'.format({'x': 1, 'y': 2}) }} {{ '{!r}'.format('a') }}
{{ '{}'.format() }}
{{ '%s %d %5.2f %r %x %%' % ('a', 42, 3.14159, 'b', 255) }} {{ '%s' % 'x' }} {{ '%05d|%-5d|%+d|% d' % (42, 42, 42, 42) }} {{ '%(a)s %(b)d' % {'a': 1, 'b': 2} }} {{ '%5s|%-5s|%.2s' % ('a', 'b', 'cde') }} {{ '%e %g %G' % (12345.678, 1e-10, 1e20) }} {{ '%c' % 'x' }} {{ '%s' % [1] }} {{ '%i' % 3.9 }}
{{ '%s %s' % 'x' }}
{{ '%s' % ('a', 'b') }}
{{ '%d' % 'x' }}
{{ d.keys()|list }} {{ d.values()|list }} {{ ed.items()|list }} {{ people[0].items()|list }} {{ ed.keys() }} {{ people[1].keys() }} {{ people[1].values() }} {{ people[1].items() }}
{{ l.index(1) }} {{ l.count(3) }} {{ (1, 2, 1).count(1) }} {{ [1, 2].copy() }} {{ d.copy()['b'] }}
{{ l.index(9) }}
{{ l.append(1) }}
{{ d.update({}) }}
{{ d.pop('a') }}
{{ s.__class__ }}
{{ s.nope() }}
{{ s() }}
{{ sp|trim }} {{ s|length }} {{ l|count }} {{ s|upper }} {{ s|lower }} {{ 'a b-c (d [e <f'|title }} {{ 'abC'|capitalize }} {{ s|replace('l', 'L') }} {{ n|string ~ 'x' }} {{ 'x'|trim('x') }}| {{ 1|trim }} {{ 5|upper }}
{{ n|length }}
{{ l|join }} {{ l|join(', ') }} {{ people|join(', ', attribute='name') }} {{ people|join(', ', 'age') }} {{ [1, none, true, 'x']|join('-') }} {{ 'abc'|join('.') }} {{ undefined_name|join(',') }}|
{{ undefined_name|default('x') }} {{ e|default('x') }}|{{ e|default('x', true) }} {{ no|d('x') }} {{ no|d('x', true) }} {{ d.nope|default }}| {{ undefined_name|default(default_value='k', boolean=false) }}
{{ l|first }} {{ l|last }} {{ s|first }} {{ s|last }} {{ el|first }}|{{ el|last }}| {{ (el|first) is defined }} {{ d|first }} {{ d|last }}
{{ l|sort }} {{ l|sort(reverse=true) }} {{ names|sort }} {{ names|sort(case_sensitive=true) }} {{ people|sort(attribute='age')|map(attribute='name')|list }} {{ people|sort(attribute='age,name')|map(attribute='name')|join }} {{ people|sort(true, attribute='age')|map(attribute='name')|list }}
{{ [1, 'a']|sort }}
{{ [1, 1, 2, 'a', 'A']|unique|list }} {{ people|unique(attribute='age')|map(attribute='name')|list }} {{ l|reverse|list }} {{ s|reverse }} {{ u|reverse }} {{ l[::-1] }} {{ el|reverse|list }}
{{ d|items|list }} {{ undefined_name|items|list }} {{ d|dictsort }} {{ d|dictsort(true) }} {{ {'a': 2, 'b': 1}|dictsort(by='value') }} {{ {'a': 2, 'b': 1}|dictsort(false, 'value', reverse=true) }}
{{ people|map(attribute='pet.kind')|list }} {{ people|map(attribute='pet.kind', default='none')|list }} {{ names|map('upper')|list }} {{ ['a']|map('replace', 'a', 'b')|join }} {{ nested|map('first')|list }} {{ nested|map(attribute=0)|list }} {{ [' x ']|map('trim')|list }}
{{ l|select('odd')|list }} {{ l|select('gt', 1)|list }} {{ l|reject('equalto', 1)|list }} {{ [0, 1, '', 'x']|select|list }} {{ [0, 1]|reject|list }} {{ people|selectattr('age', 'eq', 31)|map(attribute='name')|list }} {{ people|rejectattr('pet')|list|length }} {{ people|selectattr('pet', 'defined')|list|length }} {{ people|selectattr('name', 'in', ['Ann'])|list|length }} {{ people|selectattr('pet.kind', '==', 'dog')|map(attribute='name')|first }} {{ no|select|list }}
{% if people|selectattr('age', 'eq', 99) %}yes{% else %}no{% endif %}{% if people|selectattr('age', 'eq', 99)|list %}yes{% else %}no{% endif %}
{{ (people|selectattr('age', 'eq', 31))|length }}
{{ (l|map('string'))[0] is defined }}
{{ l|sum }} {{ people|sum(attribute='age') }} {{ l|sum(start=10) }} {{ [[1],[2]]|sum(start=[]) }} {{ l|min }} {{ l|max }} {{ names|min }} {{ people|max(attribute='age') }} {{ el|min is defined }}
{{ [1,2,3,4,5]|batch(2)|list }} {{ [1,2,3]|batch(2, 0)|list }} {{ [1,2,3,4,5]|slice(2)|list }} {{ [1,2,3,4,5]|slice(3, 'x')|list }}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2) }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(2, blank=true) }}|{{ 'a\nb'|indent('> ') }}|{{ 'a\n'|indent }}|{{ ''|indent(2, true) }}|
{{ '<a href="x">&\'</a>'|e }} {{ '<'|safe }} {{ '<'|escape }} {{ 5|e }}
{{ '<b>'|safe + '<i>' }} {{ '<i>' + '<b>'|safe }} {{ '<b>'|safe ~ '<i>' }} {{ ('<b>'|e).upper() + '<' }} {{ ('<'|e)[0] + '<' }} {{ '<'|e|e }} {{ '<'|e|forceescape }} {{ '<'|e is escaped }} {{ ('<b>'|safe) * 2 + '>' }} {{ ('<'|safe)|replace('<', 'x') + '<' }} {{ (' <'|safe)|trim + '<' }} {{ ('a <'|safe).split()[1] + '<' }}
{% if fa %}{{ s|nope }}{{ s is nope }}{% endif %}fine
{% if t %}{{ s|nope }}{% endif %}
{{ 'a b, c_d'|wordcount }} {{ 'foo bar baz qux'|truncate(9) }} {{ 'foo bar baz qux'|truncate(9, true) }} {{ 'foo bar baz qux'|truncate(11) }} {{ 'foo bar baz qux'|truncate(11, false, '...', 0) }} {{ 'a b/ü?&=~'|urlencode }} {{ {'a b': 'c/d', 'e': 1}|urlencode }} {{ '%s-%s'|format(1, 2) }} {{ '%(a)s'|format(a=3) }} {{ 'a'|center(5) }}|
{{ '42'|int }} {{ '42.9'|int }} {{ 'x'|int }} {{ 'x'|int(5) }} {{ '1f'|int(0, 16) }} {{ 3.9|int }} {{ -3.9|int }} {{ true|int }} {{ none|int }} {{ ' 7 '|int }} {{ '1_000'|int }} {{ '0x1f'|int(base=16) }} {{ '1e3'|int }} {{ '3.5'|float }} {{ 'x'|float }} {{ 5|float }} {{ 'x'|float(1.5) }} {{ 'inf'|float }} {{ '1e400'|float }}
{{ -5|abs }} {{ 2.567|round(2) }} {{ 2.5|round }} {{ 3.5|round }} {{ 2.1|round(method='ceil') }} {{ 2.19|round(1, 'floor') }} {{ 5|round }} {{ 2.675|round(2) }} {{ 1234.5|round(-2) }} {{ 0.5|round|int }}
{{ json|tojson }} {{ s|tojson }} {{ no|tojson }} {{ t|tojson }} {{ 1.0|tojson }} {{ 1e100|tojson }} {{ big|tojson }} {{ (1, 2)|tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 5}|tojson }} {{ '\x00\x7f\u2028é\U0001f600'|tojson }}
{{ json|tojson(indent=2) }}|{{ json|tojson(indent=4, ensure_ascii=true) }}|{{ json|tojson(separators=(',', ':')) }}|{{ json|tojson(sort_keys=true) }}|{{ [[], {}, [1]]|tojson(indent=1) }}|{{ [1]|tojson(indent='\t') }}|{{ [1, [2]]|tojson(indent=0) }}|{{ {'b': 1, 'a': 2}|tojson(true, 2, none, true) }}
{{ undefined_name|tojson }}
{{ d.items()|tojson }}
{{ namespace|tojson }}
{{ l|attr('nope') }}| {{ d|attr('b') }}|
{{ x|nope }}
{{ n is odd }} {{ n is even }} {{ n is divisibleby 7 }} {{ n is divisibleby(2) }} {{ n is number }} {{ f is float }} {{ n is integer }} {{ t is integer }} {{ t is boolean }} {{ t is true }} {{ fa is false }} {{ t is number }} {{ 1 is true }}
{{ s is string }} {{ l is string }} {{ d is mapping }} {{ l is mapping }} {{ l is sequence }} {{ s is sequence }} {{ d is sequence }} {{ n is sequence }} {{ s is iterable }} {{ n is iterable }} {{ no is none }} {{ no is not none }} {{ undefined_name is undefined }} {{ undefined_name is none }} {{ undefined_name is iterable }} {{ undefined_name is sequence }} {{ d.keys() is sequence }} {{ d.keys() is iterable }} {{ range(3) is sequence }}
{{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 1 is eq 1 }} {{ 1 is equalto 2 }} {{ 1 is ne 2 }} {{ 1 is lt 2 }} {{ 2 is ge 2 }} {{ 2 is greaterthan 1 }} {{ 1 is in [1] }} {{ no is sameas none }} {{ 1 is sameas true }} {{ range is callable }} {{ s is callable }} {{ s.upper is callable }} {{ 'trim' is filter }} {{ 'nope' is filter }} {{ 'odd' is test }} {{ s is escaped }}
{{ s is not string }} {{ not s is string }} {{ n is odd and f is float }} {{ 'x' if n is odd else 'y' }} {{ n is odd or false }} {{ [n is odd] }} {{ s is string == true }}
{{ n is nope }}
{{ range(3)|list }} {{ range(1, 4)|list }} {{ range(5, 0, -2)|list }} {{ range(0)|list }} {{ range(3) }} {{ range(0, 6, 2) }} {{ range(3)|length }} {{ range(5)[1] }} {{ range(5)[-1] }} {{ 3 in range(5) }} {{ range(10)[2:5]|list }}
{{ range(100001) }}
{{ range(1.5) }}
{{ range(1, 5, 0) }}
{{ dict(a=1, b=2) }} {{ dict({'x': 1}, y=2) }} {{ dict([('a', 1)]) }} {{ dict() }}
{% for x in l %}{{ x }},{% endfor %}
{% for x in el %}{{ x }}{% else %}none{% endfor %}
{% for x in undefined_name %}{{ x }}{% else %}none{% endfor %}
{% for x in no %}{% endfor %}
{% for x in n %}{% endfor %}
{% for c in u %}{{ c }}.{% endfor %}
{% for k in d %}{{ k }}={{ d[k] }};{% endfor %}{% for k, v in d|items %}{{ k }}:{{ v }};{% endfor %}
{% for k, v in people[0].items() %}{{ k }}={{ v }};{% endfor %}{% for a, b in [(1, 2), [3, 4]] %}{{ a }}{{ b }};{% endfor %}{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for x in l %}{{ loop.index }}/{{ loop.index0 }}/{{ loop.revindex }}/{{ loop.revindex0 }}/{{ loop.first }}/{{ loop.last }}/{{ loop.length }}/{{ loop.previtem }}/{{ loop.nextitem }}/{{ loop.cycle('a', 'b') }}/{{ loop.depth }};{% endfor %}
{% for x in [1, 1, 2, 2, 1] %}{% if loop.changed(x) %}{{ x }}{% endif %}{% endfor %}{% for x in l %}{{ loop }}{% endfor %}
{% for x in l if x > 1 %}{{ loop.index }}:{{ x }}{{ ',' if not loop.last }}{% endfor %}|{% for x in l if x > 9 %}{{ x }}{% else %}none{% endfor %}|{% for x in l if x > 1 %}{{ loop.length }}{{ loop.revindex }}{% endfor %}
{% for x in l|map('string') %}{{ x }}{{ loop.length }}{{ loop.last }}{% endfor %}
{% for x in range(10) %}{% if x == 2 %}{% continue %}{% endif %}{% if x == 5 %}{% break %}{% endif %}{{ x }}{% endfor %}|{% for x in [1] %}{% break %}{% else %}else{% endfor %}|{% for x in [1] %}{% continue %}{% else %}else{% endfor %}
{% break %}
{% for x in l %}{% for y in [1, 2] %}{{ loop.index }}{% endfor %}{{ loop.index }};{% endfor %}
{% for x in tree recursive %}{{ x.n }}{{ loop.depth }}{% if x.kids %}({{ loop(x.kids) }}){% endif %}{% endfor %}
{% for x in l %}{{ loop([]) }}{% endfor %}
{% set x = 1 %}{% for i in l %}{% set x = x + 1 %}{{ x }}{% endfor %}{{ x }}
{% set x = 1 %}{% if t %}{% set x = 2 %}{% endif %}{{ x }}
{% set ns = namespace(x=1, y=[]) %}{% for i in l %}{% set ns.x = ns.x + i %}{% set ns.y = ns.y + [i] %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns['x'] }}{{ ns.nope is defined }}
{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns }}{% set ns = namespace({'q': 2}) %}{{ ns.q }}
{% set ns = namespace() %}{% set ns._a = 1 %}
{% set d.x = 1 %}
{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (a, b) = (b, a) %}{{ a }}{{ b }}{% set c = 1, 2 %}{{ c }}{% set a, b = 'xy' %}{{ a }}{{ b }}
{% set x %}  block {{ n }} {% endset %}[{{ x }}]{% set x | trim | upper %}  block {% endset %}[{{ x }}]
{% set x %}{% set y = 5 %}{{ y }}{% endset %}{{ x }}{{ y }}
{% if n > 5 %}a{% elif n > 3 %}b{% else %}c{% endif %}{% if n > 9 %}a{% elif n > 3 %}b{% else %}c{% endif %}{% if n > 9 %}a{% elif n > 8 %}b{% elif n > 7 %}d{% else %}c{% endif %}{% if e %}x{% endif %}
{% if el %}1{% endif %}{% if ed %}2{% endif %}{% if 0.0 %}3{% endif %}{% if '0' %}4{% endif %}{% if [0] %}5{% endif %}{% if undefined_name %}6{% endif %}{% if range(0) %}7{% endif %}{% if ed.items() %}8{% endif %}
{% macro m(a, b=2, c='x') %}{{ a }}-{{ b }}-{{ c }};{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(1, c='z') }}{{ m(b=5, a=4) }}{{ m() }}{{ m.name }}
{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, z=2) }}
{% macro m(a) %}{{ a.x.y }}{% endmacro %}{{ m(1) }}
{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}body {{ n }}{% endcall %}
{% macro m(l) %}{% for x in l %}{{ caller(x) }};{% endfor %}{% endmacro %}{% call(x) m(l) %}<{{ x }}>{% endcall %}{% macro k() %}{% if caller is defined and caller %}c{% else %}n{% endif %}{% endmacro %}{{ k() }}{% call k() %}{% endcall %}
{% macro f(n) %}{% if n > 0 %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(5) }}
{% set x = 'outer' %}{% macro m() %}{{ x }}{% set x = 'inner' %}{{ x }}{% endmacro %}{{ m() }}{{ x }}
{% macro m() %}{{ later }}{% endmacro %}{% set later = 'L' %}{{ m() }}
{% macro m(x, y=x ~ '!') %}{{ y }}{% endmacro %}{{ m('a') }}{{ m('a', 'b') }}
{% macro m(x) %}  {{ x }}  {% endmacro %}[{{ m('a')|trim }}][{{ m('a') ~ 'b' }}]
{% filter upper %}shout {{ s }}{% endfilter %}{% filter replace('a', 'b')|upper %}banana{% endfilter %}
{% with a = 1, b = n %}{{ a }}{{ b }}{% set a = 5 %}{{ a }}{% endwith %}{{ a }}|{% set a = 3 %}{% with a = a + 1, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}
{% generation %}gen {{ s }}{% endgeneration %}
{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}
{% raw %}{{ not }} {% this %}{% endraw %}|{%- raw -%}  {{ x }}  {%- endraw -%}  |
{# comment #}a{#- c -#} b{# multi {{ x }} #}
a {%- if t -%} b {%- endif -%} c
a {{- s -}} b
{{ {'a': {'b': 1}}.a.b }}{{ {'a': {}} }}
{{ [1, 2,] }}{{ {'a': 1,} }}{{ dict(a=1,) }}
{{ (1) }}{{ (1,) }}{{ ((1, 2)) }}
{{ l | first + 1 }}{{ l|length > 2 }}{{ l|length + 1 }}{{ 'a' ~ l|length ~ 'b' }}{{ -l|first }}{{ not l|length }}{{ 2 * l|sum }}
{{ raise_exception('boom ' ~ n) }}
{% if false %}{{ raise_exception('x') }}{% endif %}fine
{{ strftime_now('%Y-%m-%d') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%A, %B %d, %Y %H:%M:%S %p %j %y %I %U %w %a %%') }} {{ strftime_now('%-d %-m %e') }} {{ strftime_now('%F %T %D %R') }} {{ strftime_now('%V %G %u %W %C %s') }} {{ strftime_now('%c|%x|%X') }}
{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{% set j = joiner(', ') %}{{ j() }}x{{ j() }}y
{% print 5, 'a' %}
{{ "a" if "x" is in ["x"] else "b" }}{{ [1,2] is iterable and [1,2] is not string }}
{{ '%s' % none }}{{ '%s'|format(none) }}{{ '%s %s' % (1, true) }}
{{ x is defined and x is not none }}{{ (x is defined) and x }}{{ x|default(false) }}
{% for m in people %}{{- '<' + m['name'] + '>' }}{% if not loop.last %}{{ '\n' }}{% endif %}{% endfor %}
{% for m in people|reverse %}{{ m.name }}{{ loop.index0 }}{% endfor %}{% for m in people[::-1] %}{{ m.name }}{% endfor %}{% for m in (people|list)[1:] %}{{ m.name }}{% endfor %}
{% set ns = namespace(flag=true) %}{% for x in [1, 2, 3] if ns.flag %}{{ x }}{% set ns.flag = x < 2 %}{% endfor %}
{% set content = 'a</think>b' %}{% if '</think>' in content %}{{ content.split('</think>')[0] }}{{ content.split('</think>')|last }}{% endif %}
{{ messages }}{{ tools is none }}{{ s.split(', ')[1] | lower }}{{ (s.split(', ')|first).upper() }}
{{ d['b'] if 'b' in d else 'no' }}{{ d.b if d.b is defined }}{{ people[1].pet.kind is defined if people[1].pet is defined else 'nopet' }}
{{ people[1].pet.kind is defined }}
{% if not (people | selectattr('age', 'gt', 30) | list) %}none{% else %}{{ (people | selectattr('age', 'gt', 30) | list)[0].name }}{% endif %}
{{ [1, [2, 3], 'x'] == [1, [2, 3], 'x'] }}{{ {'a': 1} == {'a': 1.0} }}{{ (1, 2) == [1, 2] }}{{ none == false }}{{ undefined_name == none }}{{ undefined_name == nope }}{{ d.items() == 1 }}
{{ {'a': 1, 'a': 2} }}{{ {1: 'a', 1.0: 'b', true: 'c'} }}
{{ {[1]: 2} }}
{{ {(1, 2): 3}[(1, 2)] }}{{ {(1, 2): 3}[1, 2] }}
{{ s[1:3:] }}{{ s[:] }}{{ l[:][0] }}{{ s[n:] }}{{ s[none:2] }}
{{ s['a':] }}
{{ lines }}
{{ 'a' is string and 'b' in 'abc' or false }}{{ 1 if true and not false else 2 }}{{ (1 > 2) | string }}{{ 3 in [1,2,3] and 4 not in [1,2,3] }}
{{ 'x'.join(['a', 'b']) | upper }}{{ ('a', 'b') | join('+') }}{{ ['b', 'a'] | sort | first }}{{ 'abc' | list }}{{ d | list }}{{ d | length }}
{{ loop }}|{{ loop is defined }}|{{ caller is defined }}
{% macro outer(x) %}{% macro inner(y) %}{{ x }}{{ y }}{% endmacro %}{{ inner('i') }}{% endmacro %}{{ outer('o') }}
{% for x in [1, 2] %}{% macro m() %}{{ x }}{% endmacro %}{{ m() }}{% endfor %}
{% if t %}{% macro cond() %}C{% endmacro %}{% endif %}{{ cond() }}
{% set f = s.upper %}{{ f() }}{{ s.upper() is string }}
{{ l | map('int') | map('string') | join(',') }}{{ ['1', '2'] | map('int') | sum }}{{ people | map(attribute='name') | map('lower') | join(' ') }}
{% set it = l | map('string') %}{{ it | list }}{{ it | list }}
{{ u | upper }}{{ u.title() }}{{ u | title }}{{ u | capitalize }}{{ u.split(' ') }}{{ u.center(20, '·') }}{{ '%10s|' % 'ü' }}{{ '{:>4}|'.format('ü') }}
{{ [none, true, 1.5] | string }}{{ none | string }}{{ true ~ '' }}{{ 1.5e300 * 1e10 }}{{ 1e308 * 10 }}{{ -(1e308 * 10) }}
{{ foo.bar is defined }}
{{ d.b.c is defined }}{{ d.b.c }}|
{{ none is none }}{{ None is none }}{{ True }}{{ False }}{{ true is True }}
{{ ''.join(['a', 'b']) }}{{ ' '.join(names | map('upper')) }}{{ names | join(' ') | upper }}
{{ [{'a': 1}, {'a': 2}] | selectattr('a', 'equalto', 2) | first }}{{ [{'a': 1}] | map(attribute='b') | list }}
{% set messages = [{'role': 'system', 'content': 'x'}] + people %}{{ messages[1:] | length }}{{ messages[0]['role'] == 'system' }}
{% if messages is defined and messages[0]['role'] == 'system' %}a{% else %}b{% endif %}
{% include 'x' %}
{% extends 'x' %}
{% nonsense %}
{{ 1 +
{% if t %}unclosed
{{ 'unclosed }}
{% endif %}
{{ (1, 2 }}
{{ a b }}
{{ }}
{% for in l %}{% endfor %}
{% set 1 = 2 %}
{% for loop in l %}{% endfor %}
{{ f(**1) }}
{{ dict(a=1, **{'b': 2}) }}{{ dict(*[[('x', 1)]]) }}{{ range(*[1, 3])|list }}
{{ 'a'|default('b', boolean=true, nope=1) }}
{{ s|replace }}
{{ s|trim('a', 'b') }}
{{ loop.index }}
'''.split("\n") if line]

# several lines: white space around blocks
CONSTRUCTS += [
    "a\n{% if t %}\nb\n{% endif %}\nc\n",
    "a\n  {% if t %}  \n  b\n  {% endif %}\nc\n\n",
    "a\n  {%+ if t %}\nb\n  {%- endif +%}\nc",
    "  {{ s }}\n  {# c #}\n  {% set x = 1 %}\n  {{ x }}\n",
    "{% for x in l %}\n  {{ x }}\n{% endfor %}\nend",
    "{%- for x in l -%}\n  {{ x }}\n{%- endfor -%}\n  end  \n",
    "x {% if t %} y {% endif %} z\n{% if t %}\n\nq{% endif %}\n",
    "\n\n{% set x = 1 %}\n\n{{ x }}\n\n",
    "{% raw %}\n  {{ a }}\n{% endraw %}\nb",
    "  {% raw %}  \n a\n   {% endraw %}  \nb",
    "a\r\nb\r{% if t %}\r\nc{% endif %}\r\n",
    "{{ 'a\r\nb' }}|{{\n s\n }}|{% if t\n and n %}x{% endif %}",
    "{#\n comment\n#}\nb{#- x -#}\n c",
    "{% set x %}\n  a\n{% endset %}\n[{{ x }}]\n",
    "{% macro m(a) %}\n  {{ a }}\n{% endmacro %}\n{{ m(1) }}{{- m(2) -}}\n x",
    "{%- if t -%}\n{{- 'a' -}}\n{%- else -%}\n{%- endif %}\n\nb",
    "\t{%- set y = 1 %}\t\n\t{{ y }}",
    "{% if t %}a{% endif %}\n\n\n{% if t %}b{% endif %}\n",
    "\u00a0{%- if t %}a{% endif -%}\u2003 b",
    " {% if t %}a{% endif %}{% if t %} {% endif %}",
    "line1\n   {{- s }}\n   {{ s -}}   \n\n  x",
    "{{ s }}\n\n",
    "{{ s }}\n",
    "",
    "\n",
    "{# only #}",
]
