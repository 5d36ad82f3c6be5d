"""Credit without a trainer: logits of two contexts and a verifier's rewards go in, a weight for each token comes out.

    python examples/credit_from_arrays.py

Everything is numpy; torch tensors work as well. Any trainer can multiply its token advantages by these weights.
"""

import numpy as np

from sgcd import Credit, advantages, divergence_features, segment, weigh

rng = np.random.default_rng(0)
TOKENS, VOCABULARY = 48, 200

# One of four siblings, which failed. The policy wrote tokens 0-19 and 26-47; a tool answered in between.
rewards = [1.0, 0.0, 0.0, 1.0]
mine = 2
mask = np.ones(TOKENS, dtype=bool)
mask[20:26] = False
outside_literals = np.ones(TOKENS, dtype=bool)
outside_literals[[32, 33]] = False  # a booking number: a literal keeps its ordinary credit

# The same policy scored the same tokens twice: as it played, and once it had been shown what its siblings did.
# They agree but for the token at 30, where the teacher would have called another tool.
student = rng.normal(0, 1, (TOKENS, VOCABULARY))
observed = student.argmax(-1)
student[np.arange(TOKENS), observed] += 6
teacher = student + rng.normal(0, 0.05, student.shape)
teacher[30, observed[30]] -= 6
teacher[30, (observed[30] + 1) % VOCABULARY] += 9

divergence, entropy, gap = divergence_features(student, teacher, observed, k=20)
segments = segment(divergence, entropy, mask, outside_literals=outside_literals)
weight = weigh(segments.saliency, mask & outside_literals)
credit = Credit(advantage=float(advantages(rewards)[mine]), weight=weight, cap=2.0)

print(f"advantage {credit.advantage:+.3f} for every token, before credit")
for span in segments.spans:
    print(f"segment [{span.start}, {span.stop}) with saliency {span.saliency:.2f}, gap {gap[span.start]:+.1f}")
print("token  divergence  weight  advantage")
for t in range(26, 42):
    print(f"{t:5d}  {divergence[t]:10.3f}  {weight[t]:6.2f}  {credit.token_advantage[t]:+9.3f}")
