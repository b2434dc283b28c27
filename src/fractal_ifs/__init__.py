"""fractal_ifs: when does depth help a network that is trained by gradient descent?"""
