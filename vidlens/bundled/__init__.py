"""How the bundled model was made and graded. In the repository; the wheel leaves it out."""
