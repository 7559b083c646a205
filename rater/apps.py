"""The agents' apps by name, for Faust's own command line: `faust -A rater.apps:timer agents` lists the agents of the timer's
app.

`faust -A rater.apps agents` shows the rating app. An app is made from the settings (RATER_…) when it is asked for. Run workers
with `rater worker`, not with `faust worker`: it runs several apps in one process, and its exit code says how they ended.
"""

from rater.bootstrap import AGENTS
from rater.engine.app import EngineApp
from rater.settings import Settings


def __getattr__(name: str) -> EngineApp:
    """The app of an agent; `app` is the rating agent's."""
    agent = AGENTS.get("rating" if name == "app" else name)
    if agent is None:
        raise AttributeError(name)
    return agent.make(Settings())
