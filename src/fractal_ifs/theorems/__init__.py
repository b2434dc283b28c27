"""The paper's statements as programs: constructed networks, exact integrals on the line, a check of each theorem."""
