"""The tables of topics in experiments/README.md: current, and each path is there."""

import itertools

import pytest

from dlx.run import experiments_by_name
from tests.house import topics

TOPICS = list(itertools.chain.from_iterable(topics.AREAS.values()))


def test_the_tables_are_those_of_today():
  text = topics.README.read_text(encoding='utf-8')
  remedy = 'python -m tests.house.topics writes it anew'
  assert topics.written(text) == text, remedy


@pytest.mark.parametrize('topic', TOPICS, ids=lambda topic: topic.title)
def test_code_and_tests_of_a_topic_are_there(topic):
  assert topic.code and topic.tests
  for path in (*topic.code, *topic.tests):
    assert (topics.ROOT / path).exists(), path


def test_titles_are_different():
  titles = [topic.title for topic in TOPICS]
  assert len(set(titles)) == len(titles)


@pytest.mark.parametrize('area', ['foundations', 'sequences', 'graphs', 'tables'])
def test_every_experiment_of_an_area_has_a_topic(area):
  shown = {path for topic in TOPICS for path in topic.code}
  for name in experiments_by_name.by_area()[area]:
    assert f'experiments/{area}/{name}.py' in shown, name


def test_every_lesson_has_a_topic():
  shown = {path for topic in TOPICS for path in topic.code}
  for path in (topics.ROOT / 'dlx' / 'scratch').glob('[!_]*.py'):
    assert str(path.relative_to(topics.ROOT)) in shown, path.name
