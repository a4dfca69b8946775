"""Studies beside the comparison: objectives, abstract models, other measures, narrow latents."""

EXPERIMENTS = {
    "objectives": "What each objective leaves in the encoder.",
    "table2": "Abstract models of every game (the paper's Table 2).",
    "measures": "Measures beside the bit probe: labels, and ranking of predictions.",
    "bottleneck": "Scores against the size of the latents (the paper's Figure 5).",
}
