"""The facts live in settings.ini; this file hands them to setuptools."""
from configparser import ConfigParser
from pathlib import Path

import setuptools
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(HERE / 'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']
EXTRA = '_requirements'


class SdistWithSettings(sdist):
    "A source archive without settings.ini could not run this file."

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, [*files, 'settings.ini'])


class BuildWithoutIndex(build_py):
    "nbdev's index of symbols is for its documentation; nothing reads it at run time."

    def find_package_modules(self, package, package_dir):
        return [m for m in super().find_package_modules(package, package_dir) if m[1] != '_modidx']


setuptools.setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=(HERE / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    keywords=cfg['keywords'],
    license='Apache-2.0',
    # how the bundled model was made stays in the repository
    packages=setuptools.find_packages(include=['vidlens', 'vidlens.*'], exclude=['vidlens.bundled', 'vidlens.bundled.*']),
    package_data={'vidlens': ['py.typed', '*.js', '*.css', 'assets/**/*']},
    include_package_data=False,
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg['requirements'].split(),
    extras_require={key.removesuffix(EXTRA): value.split() for key, value in cfg.items() if key.endswith(EXTRA)},
    entry_points={'console_scripts': [cfg['console_scripts']]},
    cmdclass={'sdist': SdistWithSettings, 'build_py': BuildWithoutIndex},
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        f"Programming Language :: Python :: {cfg['min_python']}",
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
    zip_safe=False,
)
