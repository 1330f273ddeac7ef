"""Command lines: the only place with flags."""

from dlx import beside

beside.claim('experiments')
