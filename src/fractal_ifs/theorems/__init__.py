"""The paper's statements as programs: constructed networks, exact integrals in one dimension, and each theorem's
check.
"""
