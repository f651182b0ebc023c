"""Package facts live in settings.ini; this file only hands them to setuptools."""
from configparser import ConfigParser
from pathlib import Path

import setuptools
from setuptools.command.sdist import sdist as _sdist

HERE = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(HERE / 'settings.ini', encoding='utf-8')
cfg = ini['DEFAULT']


class sdist(_sdist):
    "The source archive must hold settings.ini: without it this file cannot run."

    def add_defaults(self):
        super().add_defaults()
        self.filelist.append('settings.ini')


def extra(name):
    return cfg.get(f'{name}_requirements', '').split()


def requirement_list(text):
    return [r for r in text.split() if r]


setuptools.setup(
    name=cfg['lib_name'],
    version=cfg['version'],
    description=cfg['description'],
    long_description=(HERE / 'README.md').read_text(encoding='utf-8') if (HERE / 'README.md').exists() else '',
    long_description_content_type='text/markdown',
    author=cfg['author'],
    author_email=cfg['author_email'],
    url=cfg['git_url'],
    keywords=cfg['keywords'],
    license='Apache-2.0',
    packages=setuptools.find_packages(include=['vidlens', 'vidlens.*']),
    package_data={'vidlens': ['py.typed', '*.js', '*.css', 'assets/**/*']},
    include_package_data=False,
    python_requires=f">={cfg['min_python']}",
    install_requires=requirement_list(cfg['requirements']),
    extras_require={name: extra(name) for name in ('dev', 'docs', 'sweep', 'eval')},
    entry_points={'console_scripts': cfg['console_scripts'].split()},
    cmdclass={'sdist': sdist},
    classifiers=['Development Status :: 3 - Alpha', 'Intended Audience :: Science/Research',
                 'Programming Language :: Python :: 3.11', 'Topic :: Scientific/Engineering :: Artificial Intelligence'],
    zip_safe=False,
)
