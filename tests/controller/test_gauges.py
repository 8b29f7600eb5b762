"""Numbers in the text that Prometheus reads."""

from latent.controller.gauges import Gauges


def test_gauges_are_text() -> None:
    """With or without labels, in order of their names; what a label says is escaped."""
    gauges = Gauges()
    gauges.add("b", "The b.", lambda: {(): 1.5})
    gauges.add("a", "The a.", lambda: {(("x", 'say "\n\\"'), ("y", "")): 2})
    assert gauges.text() == (
        '# HELP a The a.\n# TYPE a gauge\na{x="say \\"\\n\\\\\\"",y=""} 2\n# HELP b The b.\n# TYPE b gauge\nb 1.5\n'
    )
