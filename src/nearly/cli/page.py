"""The page that the demonstration leaves: one HTML file without scripts, styles and chart inside."""

from html import escape
from typing import TYPE_CHECKING

import nearly
from nearly.cli.chart import chart
from nearly.cli.measure import Measured
from nearly.cli.output import as_bytes, per_second

if TYPE_CHECKING:
    from nearly.cli.demo import Asked, Report

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --soft: #5d6878; --paper: #fbfaf7; --card: #ffffff; --rule: #e4e1d8;
  --one: #0f6f78; --two: #c2571a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --soft: #9aa5b1; --paper: #15191e; --card: #1c2127;
  --rule: #323a43; --one: #57bcc6; --two: #f0975a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 54rem; padding: 3rem 1.25rem 4rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.6rem 0 .6rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 1.6rem 0 0; }
.facts div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .8rem 1rem; }
.facts b { display: block; font-size: 1.6rem; font-weight: 650; line-height: 1.25; color: var(--one);
  font-variant-numeric: tabular-nums; }
.facts span { color: var(--soft); font-size: .86rem; }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .6rem; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, "Segoe UI", sans-serif; }
.grid { stroke: var(--rule); stroke-width: 1; } .tick, .axis { fill: var(--soft); } .label { fill: var(--ink); }
.line { fill: none; stroke: var(--one); stroke-width: 2; stroke-linejoin: round; } .dot { fill: var(--one); }
.target { fill: var(--card); stroke: var(--one); stroke-width: 2.5; } .exact { fill: var(--two); }
.exactline { stroke: var(--two); stroke-width: 1.5; stroke-dasharray: 5 4; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 500; font-size: .86rem; } th:first-child, td:first-child { text-align: left; }
.asked { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .8rem 1rem;
  margin: .7rem 0; }
.asked h3 { margin: 0 0 .3rem; font-size: 1rem; } .asked ol { list-style: none; margin: 0; padding: 0; }
.asked li { display: grid; grid-template-columns: 4.2rem 1fr; gap: .3rem; padding: .25rem 0; }
.asked li > span:first-child { color: var(--soft); font-variant-numeric: tabular-nums; }
.asked .text { color: var(--soft); font-size: .9rem; display: block; overflow-wrap: anywhere; }
code, pre { font: .88rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: .8rem 1rem;
  overflow-x: auto; }
"""
_LONGEST = 220  # characters of a paragraph that are shown


def page(report: "Report") -> str:
    """Return the whole page."""
    found = "Asked in words" if report.near == "score" else "Some searches"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>nearly: {escape(report.source)}</title><style>{_STYLE}</style></head><body>
<h1>Vector search that is as accurate as you ask</h1>
<p class="soft">nearly {nearly.__version__} on {escape(report.source)}: {report.n_vectors:,} vectors of dimension
{report.dim}, {escape(report.metric)}.</p>
{_facts(report)}
{_chart(report)}
<h2>Recall asked and delivered</h2>
<p class="soft">{report.n_queries:,} queries ({escape(report.queries)}), {report.k} neighbors each.
Truth: {escape(report.truth)}. Expected is what the index said before it knew these queries. {report.threads} threads
for a batch, one for a single query; {escape(report.simd)}; all searches took turns.</p>
<div class="wide">{_table(report.rows)}</div>
<h2>{found}</h2>
{_how(report)}
{"".join(_asked(one, ".3f" if report.near == "score" else ".5g") for one in report.asked)}
<h2>What was built</h2>
<p>{escape(report.plan)}.</p>
<p class="soft">{_seconds(report)}; the file has {as_bytes(report.index_bytes)}.</p>
<h2>Go on</h2>
<pre>{escape(_commands(report))}</pre>
<pre>{escape(_python(report))}</pre>
</body></html>
"""


def _facts(report: "Report") -> str:
    exact = report.rows[-1]
    facts = [(f"{report.seconds['build']:.1f} s", f"to build {report.index}")]
    chosen = next((row for row in report.rows if row.settings.get("recall") == 0.95), None)
    if chosen is None:
        facts.append((per_second(exact.batch), "exact answers per second"))
    else:
        one_by_one = (chosen.single or 0) / (exact.single or 1)
        facts = [
            (f"{chosen.delivered:.3f}", "recall delivered, 0.95 asked"),
            (f"{chosen.batch / exact.batch:.1f} ×", "the speed of exact search, in batches"),
            (f"{one_by_one:.1f} ×", "the speed of exact search, one by one"),
            *facts,
        ]
    cells = "".join(f"<div><b>{value}</b><span>{escape(of)}</span></div>" for value, of in facts)
    return f'<div class="facts">{cells}</div>'


def _chart(report: "Report") -> str:
    if not report.sweep:
        return ""  # an exact index: one point is no curve
    return f"""<h2>Speed against recall</h2>
<p class="soft">The line is one index at rising effort. A ring is a recall that was asked for: where it lies is what was
delivered, and how fast. Up and to the right is better.</p>
<figure>{chart(report.sweep, report.rows)}</figure>"""


def _table(rows: list[Measured]) -> str:
    exact = rows[-1]
    head = ("search", "expected", "delivered", "batch, per second", "× exact", "one by one, per second", "× exact")
    lines = []
    for row in rows:
        cells = [escape(row.name), "–" if row.expected is None else f"{row.expected:.3f}", f"{row.delivered:.3f}"]
        for rate, base in ((row.batch, exact.batch), (row.single, exact.single)):
            cells += [per_second(rate), f"{rate / base:.1f}"] if rate and base else ["–", "–"]
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><thead><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr></thead><tbody>{body}</tbody></table>"


def _how(report: "Report") -> str:
    if report.near != "score":
        return f'<p class="soft">The nearest rows, by {escape(report.metric)} distance.</p>'
    return (
        '<p class="soft">No model: words and groups of letters are hashed, weighted by how rare they are, projected at '
        "random and reduced to their principal components. So this finds what shares words, not meaning; the number is "
        "the cosine. Ask your own with <code>nearly demo --ask &quot;...&quot;</code>.</p>"
    )


def _asked(one: "Asked", near: str) -> str:
    def text(words: str) -> str:
        short = words if len(words) <= _LONGEST else words[:_LONGEST].rsplit(" ", 1)[0] + " …"
        return f'<span class="text">{escape(short)}</span>' if short else ""

    lines = "".join(
        f"<li><span>{answer.near:{near}}</span><span><code>{escape(answer.name)}</code>{text(answer.text)}</span></li>"
        for answer in one.answers
    )
    return f'<div class="asked"><h3>{escape(one.question)}</h3><ol>{lines}</ol></div>'


def _seconds(report: "Report") -> str:
    return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in report.seconds.items())


def _commands(report: "Report") -> str:
    return "\n".join(
        (
            f"nearly info {report.index_path}        # what it is, and the effort of each recall",
            f"nearly bench {report.index_path}       # speed at rising effort, beside exact search",
            "nearly demo --data YOUR_VECTORS.npy           # this page, of your own vectors",
            "nearly build YOUR_VECTORS.npy YOUR.nearly --metric cosine --recall 0.95",
        )
    )


def _python(report: "Report") -> str:
    return f"""import nearly

index = nearly.load({report.index_path!r})
hits = index.search(index.get(0), k=5, recall=0.99)
print(hits)"""
