"""Vector environments behind one small interface, and the normalisers that stand between them and an agent."""
