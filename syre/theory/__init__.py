"""The paper's statements as numerical experiments: one frozen measuring task each, `measure(seed) -> {name: value}`.

| statement                                                  | task                           | file            |
|------------------------------------------------------------|--------------------------------|-----------------|
| Proposition 1: a translation removes no symmetry           | `Proposition1`                 | propositions.py |
| Proposition 2: a symmetry masks features                   | `Proposition2`                 | propositions.py |
| Proposition 3: a symmetry removes parameters               | `Proposition3`                 | propositions.py |
| Theorem 1: bias and decay leave none of countably many     | `Theorem1`                     | removal.py      |
| Theorem 2: distinct D_ii remove uncountably many           | `Theorem2`                     | removal.py      |
| Theorem 3: the loss differs across a mirror by gamma sigma | `Theorem3`, `Theorem3Minima`   | strength.py     |
| Corollary 1: so does its gradient from 0 on the mirror     | `Corollary1`                   | strength.py     |
| Theorem 4: by gamma sigma / N at the weakest of N mirrors  | `Theorem4`                     | strength.py     |
| Theorem 5: general groups, (1) to (4)                      | `Theorem5`                     | groups.py       |
| Eq. (13): ridge regression, displaced                      | `Equation13`                   | training.py     |
| section 4: the escape from a symmetric saddle              | `Escape`                       | training.py     |

The claims made of them are in `experiments/figures/theory.py`, the sizes in `configs/experiment/theory.yaml`; source of
all: arXiv 2408.15495v3, its formulas as `symmetry.py` writes them.
"""

from syre.theory.groups import Theorem5
from syre.theory.propositions import Proposition1, Proposition2, Proposition3
from syre.theory.removal import Theorem1, Theorem2
from syre.theory.strength import Corollary1, Theorem3, Theorem3Minima, Theorem4
from syre.theory.training import Equation13, Escape
