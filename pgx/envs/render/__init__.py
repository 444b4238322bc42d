"""Rendering of episodes in a child process, and video files."""
