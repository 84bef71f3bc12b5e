"""What a user may ask of a model of their own: is it collapsed, and would syre help? Needs torch and numpy only."""

from syre.diagnostics.diagnose import diagnose
from syre.diagnostics.diagnosis import Diagnosis
from syre.diagnostics.watch import Collapsing, Watch
