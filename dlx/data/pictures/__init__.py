"""Picture files as rows: which part of a picture a row shows, and how it is decoded."""
