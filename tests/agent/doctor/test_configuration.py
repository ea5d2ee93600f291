import pytest

from agent.doctor.configuration import ConfigFacts, config_findings
from agent.doctor.findings import Level
from agent.settings import Config, proxy_settings

HOSTS = ("chatgpt.com", "api.openai.com")


def findings(content=None, **facts):
    content = content or {}
    settings = proxy_settings({}, {}, Config(content))
    return config_findings(ConfigFacts("/h/config.toml", True, content=content, settings=settings, **facts), HOSTS)


def test_a_file_that_moves_nothing_is_fine():
    (finding,) = findings({"model": "gpt-5.5"})
    assert finding.level is Level.OK


def provider(**table):
    """A provider of the user's own, chosen."""
    return {"model_provider": "mine", "model_providers": {"mine": {"name": "Mine"} | table}}


def test_a_broken_file_is_named_with_the_line_and_nothing_else_is_said():
    facts = ConfigFacts("/h/config.toml", True, "is not TOML: Invalid value (at line 3, column 5)", (3, 5))
    (finding,) = config_findings(facts, HOSTS)
    assert (finding.level, finding.looked_at) == (Level.PROBLEM, "'/h/config.toml' line 3")


@pytest.mark.parametrize(
    ("content", "level", "where"),
    [
        ({"openai_base_url": "https://elsewhere.example/v1"}, Level.PROBLEM, "openai_base_url"),
        ({"chatgpt_base_url": "https://elsewhere.example/"}, Level.PROBLEM, "chatgpt_base_url"),
        ({"chatgpt_base_url": "no url"}, Level.PROBLEM, "chatgpt_base_url"),
        ({"chatgpt_base_url": "https://chatgpt.com/backend-api/"}, Level.OK, ""),
        ({"model_provider": "mine"}, Level.WARNING, "model_provider"),
        (provider(base_url="https://models.example"), Level.WARNING, "model_provider"),
        (provider(base_url="https://models.example", requires_openai_auth=True), Level.WARNING, "model_provider"),
        (provider(requires_openai_auth=True), Level.OK, ""),
        (provider(base_url="https://chatgpt.com/backend-api/codex", requires_openai_auth=True), Level.OK, ""),
        (provider(base_url="https://x.example", name="OpenAI", requires_openai_auth=True), Level.OK, ""),
        (provider(base_url="https://x.example", name="OpenAI", env_key="K"), Level.WARNING, "model_provider"),
        ({"sandbox_mode": "danger-full-access"}, Level.WARNING, "sandbox_mode"),
        ({"countersign": {"stamp": "never"}}, Level.WARNING, "stamp"),
        ({"countersign": {"allow_hosts": ["*"]}}, Level.WARNING, "allow_hosts"),
        ({"countersign": {"upstream_map": ["chatgpt.com=127.0.0.1:1"]}}, Level.WARNING, "upstream_map"),
        ({"countersign": {"port": 8080}}, Level.OK, ""),
    ],
)
def test_a_key_that_keeps_requests_from_being_stamped_is_named(content, level, where):
    (finding,) = findings(content)
    assert finding.level is level and finding.looked_at.endswith(where)


def test_credentials_in_a_base_url_are_not_shown():
    told = str(findings({"openai_base_url": "https://me:s3cret@elsewhere.example/v1?key=s3cret"}))
    assert "'elsewhere.example'" in told and "s3cret" not in told


def test_a_port_that_somebody_has_is_a_warning():
    (finding,) = findings({"countersign": {"port": 8080}}, port_taken=True)
    assert finding.level is Level.WARNING and "8080" in finding.found


def test_what_looks_like_a_setting_is_passed_on_and_settings_that_cannot_be_used_are_a_problem():
    facts = ConfigFacts("/c", True, ignored=("COUNTERSIGN_STAMPP is ignored",), setting_problem="--stamp: must be")
    assert [finding.level for finding in config_findings(facts, HOSTS)] == [Level.WARNING, Level.PROBLEM]


def test_a_key_that_no_thread_starts_with_is_a_warning():
    (finding,) = findings(thread_problem="line 2: model is 5")
    assert finding.level is Level.WARNING and "app-server" in finding.advice


def test_keys_that_nobody_knows_are_a_warning_that_names_them():
    (finding,) = findings(unknown=("modle", "tui_x"))
    assert finding.level is Level.WARNING and "`modle`, `tui_x`" in finding.found
